"""Bucketed data parallelism: overlapped, with gradients gathered into messages of a certain size.

Between the two extremes: few large messages waste no latency but start late, many small ones start early.
"""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_systems.data_parallel.overlapped import Bucket, OverlappedDDP


def cut_into_buckets(order: list[nn.Parameter], bucket_bytes: float) -> list[Bucket]:
    """Parameters in the given order, in buckets of one type and at most `bucket_bytes`, or of one parameter."""
    buckets: list[Bucket] = []
    size = 0
    for parameter in order:
        fits = buckets and size + parameter.nbytes <= bucket_bytes and parameter.dtype == buckets[-1][0].dtype
        if not fits:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.nbytes
    return buckets


class BucketedDDP(OverlappedDDP):
    """One asynchronous all-reduce per bucket, as soon as all gradients of the bucket are there.

    Buckets are filled in the order in which gradients are expected: from the model's last parameter to its first, then
    as they arrived in the first step. Until the next `zero_grad`, each `.grad` is a view of its bucket.

    Args:
        module: as for `DataParallel`.
        bucket_size_mb: the most megabytes (10^6 bytes) of gradients in a bucket; a larger parameter has its own.
        process_group: as for `DataParallel`.

    Raises:
        UsageError: the size is not above 0.
    """

    def __init__(
        self, module: nn.Module, bucket_size_mb: float, process_group: dist.ProcessGroup | None = None
    ) -> None:
        if not bucket_size_mb > 0 or math.isnan(bucket_size_mb):
            raise UsageError(f"bucket_size_mb is {bucket_size_mb}; allowed is any number above 0")
        self.bucket_bytes = bucket_size_mb * 1e6
        super().__init__(module, process_group)

    def _cut(self, order: list[nn.Parameter]) -> list[Bucket]:
        return cut_into_buckets(order, self.bucket_bytes)

    def _reduce(self, bucket: Bucket) -> tuple[Any, Tensor]:
        ends = [0, *torch.tensor([parameter.numel() for parameter in bucket]).cumsum(0).tolist()]
        buffer = bucket[0].new_empty(ends[-1])
        for parameter, (start, end) in zip(bucket, pairwise(ends), strict=True):
            view = buffer[start:end].view_as(parameter)
            parameter.grad = view.copy_(parameter.grad)  # frees the gradient that the backward pass made
        return dist.all_reduce(buffer, group=self.process_group, async_op=True), buffer
