"""Gradient clipping by the global L2 norm when a model's parameters are spread over ranks."""

from collections.abc import Collection

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from cs336_basics.trainer.gradient_clipping import global_gradient_norm, scale_gradients
from cs336_systems.tensor_parallel.state import shards


@torch.no_grad()
def squared_gradient_norm(
    model: nn.Module, group: dist.ProcessGroup | None, elsewhere: Collection[nn.Parameter] = ()
) -> Float[Tensor, ""]:
    """The square of the L2 norm of the whole model's gradient, each parameter counted once.

    Args:
        model: this rank's shard.
        group: the ranks that share the model; None for a model that is not divided.
        elsewhere: parameters that are counted on other ranks.
    """
    divided = shards(model)
    # The first rank counts for all what all of them hold.
    counts_shared = group is None or dist.get_rank(group) == 0
    skipped = set(elsewhere)
    counted = [p for p in model.parameters() if p not in skipped and (counts_shared or p in divided)]
    example = next(model.parameters())
    wide = torch.promote_types(example.dtype, torch.float32)
    square = global_gradient_norm(counted).square().to(example.device, wide)
    if group is not None:
        dist.all_reduce(square, group=group)
    return square


def gradient_norm(model: nn.Module, group: dist.ProcessGroup | None) -> Float[Tensor, ""]:
    """The L2 norm of the whole model's gradient, the same on every rank of the group. All of them call it."""
    return squared_gradient_norm(model, group).sqrt()


def clip_gradient(model: nn.Module, max_l2_norm: float, group: dist.ProcessGroup | None) -> Float[Tensor, ""]:
    """`cs336_basics.trainer.gradient_clipping.clip_gradient` for a divided model: every rank scales by the same factor.

    Args:
        model: this rank's shard, with gradients.
        max_l2_norm: the largest norm allowed, above 0.
        group: the ranks that share the model; None for a model that is not divided.

    Returns:
        The norm of the whole model's gradient before clipping.

    Raises:
        ValueError: `max_l2_norm` is not above 0.
    """
    norm = gradient_norm(model, group)
    scale_gradients(model.parameters(), norm, max_l2_norm)
    return norm
