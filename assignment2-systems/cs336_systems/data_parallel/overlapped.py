"""Overlapped data parallelism: all-reduce each gradient as soon as it is there, while the backward pass goes on.

Ranks must start their collectives in one order, or they would add up gradients of different parameters. Gradients
arrive in the order of the backward pass, which may differ between ranks where a parameter is not used on all of them.
So a gradient that is ready waits for those before it in an agreed order: at first the model's parameters from the last
to the first, after the first step the order in which gradients arrived on the first rank (as in PyTorch's DDP, Li et
al. 2020, https://arxiv.org/abs/2006.15704, section 3.2.3).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cs336_systems.data_parallel.base import DataParallel

Bucket = list[nn.Parameter]
"""Parameters whose gradients travel together."""


class OverlappedDDP(DataParallel):
    """One asynchronous all-reduce per parameter, in place, during the backward pass; arguments as for `DataParallel`.

    Raises (in the backward pass):
        RuntimeError: it is the second one since `finish_gradient_synchronization()`; all but the last of a step belong
            under `no_sync()`.
    """

    def __init__(self, module: nn.Module, process_group: dist.ProcessGroup | None = None) -> None:
        super().__init__(module, process_group)
        self._in_flight: list[tuple[Any, Tensor]] = []
        self._order_is_measured = False
        self._plan(self.trainable[::-1])
        for parameter in self.trainable:
            parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def start_batch(self) -> None:
        super().start_batch()
        for work, _ in self._in_flight:
            work.wait()
        self._in_flight = []
        self._arrived: dict[nn.Parameter, None] = {}  # in the order of arrival
        self._missing = [len(bucket) for bucket in self._buckets]

    def finish_gradient_synchronization(self) -> None:
        has_gradient = [parameter.grad is not None for parameter in self.trainable]
        for bucket in self._buckets[len(self._in_flight) :]:
            self._send(bucket)
        for work, buffer in self._in_flight:
            work.wait()
            buffer /= self.world_size
        self._in_flight = []
        arrived = list(self._arrived)
        try:
            used = self._share(has_gradient)
        finally:
            self.start_batch()
        for parameter, flag in zip(self.trainable, used, strict=True):
            if not flag:
                parameter.grad = None
        if self.trainable and not self._order_is_measured:
            self._adopt_first_ranks_order(arrived)

    def _cut(self, order: list[nn.Parameter]) -> list[Bucket]:
        """Parameters in the order in which their gradients are expected, cut into buckets."""
        return [[parameter] for parameter in order]

    def _reduce(self, bucket: Bucket) -> tuple[Any, Tensor]:
        """Start summing the bucket's gradients over the ranks; returns the work and the tensor it works on."""
        (parameter,) = bucket
        return dist.all_reduce(parameter.grad, group=self.process_group, async_op=True), parameter.grad

    def _plan(self, order: list[nn.Parameter]) -> None:
        self._buckets = self._cut(order)
        self._bucket_of = {parameter: i for i, bucket in enumerate(self._buckets) for parameter in bucket}
        self.start_batch()

    def _on_gradient(self, parameter: nn.Parameter) -> None:
        if not self._synchronizing:
            return
        if parameter in self._arrived:
            raise RuntimeError(
                "a second backward pass reached a parameter before finish_gradient_synchronization(); "
                "run all but the last backward pass of a step under no_sync()"
            )
        self._arrived[parameter] = None
        self._missing[self._bucket_of[parameter]] -= 1
        while len(self._in_flight) < len(self._buckets) and self._missing[len(self._in_flight)] == 0:
            self._send(self._buckets[len(self._in_flight)])

    def _send(self, bucket: Bucket) -> None:
        for parameter in bucket:
            if parameter.grad is None:  # not used on this rank
                parameter.grad = torch.zeros_like(parameter)
        self._in_flight.append(self._reduce(bucket))

    def _adopt_first_ranks_order(self, arrived: list[nn.Parameter]) -> None:
        number = {parameter: i for i, parameter in enumerate(self.trainable)}
        seen = set(arrived)
        order = [*arrived, *(parameter for parameter in self.trainable[::-1] if parameter not in seen)]
        numbers = torch.tensor([number[parameter] for parameter in order], device=order[0].device)
        dist.broadcast(numbers, group=self.process_group, group_src=0)
        self._order_is_measured = True
        self._plan([self.trainable[i] for i in numbers.tolist()])
