"""The conjugate pairs of communication at the borders of a tensor-parallel region, as autograd functions.

Outside the region every rank holds the same activations; inside, each holds a share of the features. Entering is f and
leaving is g of Shoeybi et al. 2019 (https://arxiv.org/abs/1909.08053, section 3):

                 forward       backward
    f, enter     identity      all-reduce
    g, leave     all-reduce    identity

With sequence parallelism (Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, section 4.2.2) each rank holds a
share of the tokens outside the region, and the same bytes travel in two halves:

                 forward           backward
    f, enter     all-gather        reduce-scatter
    g, leave     reduce-scatter    all-gather

A gradient of activations that all ranks share is itself shared, never a part of a sum; each function keeps that rule.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cs336_basics.command_line import UsageError

SEQUENCE_DIM = -2
"""Activations are (..., seq, features)."""


def shard_range(size: int, rank: int, num_ranks: int) -> range:
    """The indices that `rank` holds of `size` ones: consecutive, and at most one more than any other rank holds."""
    return range(rank * size // num_ranks, (rank + 1) * size // num_ranks)


def group_shard_range(size: int, group: dist.ProcessGroup) -> range:
    """`shard_range` for this rank of the group."""
    return shard_range(size, dist.get_rank(group), dist.get_world_size(group))


def take(x: Tensor, indices: range, dim: int) -> Tensor:
    """The view of consecutive indices along one dimension."""
    return x.narrow(dim, indices.start, len(indices))


def all_reduced(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum of the group's tensors, as a new tensor."""
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def all_gathered(x: Tensor, group: dist.ProcessGroup, dim: int, size: int) -> Tensor:
    """The group's shards side by side along `dim`, as a new tensor.

    Args:
        x: this rank's shard; it holds the indices `shard_range(size, ...)`.
        size: the size of `dim` in the result.
    """
    num_ranks = dist.get_world_size(group)
    lengths = [len(shard_range(size, rank, num_ranks)) for rank in range(num_ranks)]
    # A collective moves equal parts, so the shorter shards travel with one row of padding.
    longest = max(lengths)
    part = x.movedim(dim, 0)
    if len(part) < longest:
        part = torch.cat((part, part.new_zeros(1, *part.shape[1:])))
    parts = part.new_empty(num_ranks, *part.shape)
    dist.all_gather_single(parts.flatten(0, 1), part.contiguous(), group=group)
    whole = torch.cat([parts[rank, :length] for rank, length in enumerate(lengths)])
    return whole.movedim(0, dim).contiguous()


def reduce_scattered(x: Tensor, group: dist.ProcessGroup, dim: int) -> Tensor:
    """This rank's equal share along `dim` of the sum of the group's tensors, as a new tensor."""
    whole = x.movedim(dim, 0).contiguous()
    share = whole.new_empty(len(whole) // dist.get_world_size(group), *whole.shape[1:])
    dist.reduce_scatter_single(share, whole, group=group)
    return share.movedim(0, dim).contiguous()


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return all_reduced(grad, ctx.group), None


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return all_reduced(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _GatherSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return all_gathered(x, group, SEQUENCE_DIM, x.shape[SEQUENCE_DIM] * dist.get_world_size(group))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return reduce_scattered(grad, ctx.group, SEQUENCE_DIM), None


class _ReduceScatterSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group, ctx.length = group, x.shape[SEQUENCE_DIM]
        return reduce_scattered(x, group, SEQUENCE_DIM)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return all_gathered(grad, ctx.group, SEQUENCE_DIM, ctx.length), None


class _GatherFeatures(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup, size: int) -> Tensor:
        ctx.mine = group_shard_range(size, group)
        return all_gathered(x, group, -1, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return take(grad, ctx.mine, -1), None, None


def copy_to_group(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """f: `x`, whose gradients on the ranks are summed up."""
    return _Copy.apply(x, group)


def enter_region(x: Float[Tensor, "... seq d"], group: dist.ProcessGroup, sequence_parallel: bool) -> Tensor:
    """What every rank's share of the features is computed from: all tokens, (..., full seq, d)."""
    return _GatherSequence.apply(x, group) if sequence_parallel else copy_to_group(x, group)


def leave_region(x: Float[Tensor, "... seq d"], group: dist.ProcessGroup, sequence_parallel: bool) -> Tensor:
    """The sum of the ranks' results: (..., seq, d), or this rank's tokens of it with sequence parallelism.

    Raises:
        UsageError: with sequence parallelism, the length is not a multiple of the number of ranks.
    """
    if not sequence_parallel:
        return _Reduce.apply(x, group)
    length, num_ranks = x.shape[SEQUENCE_DIM], dist.get_world_size(group)
    if length % num_ranks:
        raise UsageError(f"sequence parallelism over {num_ranks} ranks cannot divide {length} tokens; give a multiple")
    return _ReduceScatterSequence.apply(x, group)


def gather_features(x: Float[Tensor, "... shard"], group: dist.ProcessGroup, size: int) -> Float[Tensor, "... size"]:
    """The ranks' features side by side, on every rank.

    Args:
        x: this rank's features, those of `shard_range(size, ...)`.
        size: the number of all features.
    """
    return _GatherFeatures.apply(x, group, size)
