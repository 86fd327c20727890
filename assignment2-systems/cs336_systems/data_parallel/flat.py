"""Flat data parallelism: when the backward pass is over, all-reduce all gradients as one long vector.

One large message pays the latency of a collective once instead of once per parameter.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from cs336_systems.data_parallel.base import DataParallel


def average_flat(parameters: Sequence[nn.Parameter], process_group: dist.ProcessGroup | None) -> None:
    """Average gradients over the ranks in one all-reduce; each `.grad` becomes a view of the one vector.

    Args:
        parameters: the same ones on every rank, all with a gradient.
        process_group: the ranks; None is all of them.
    """
    if not parameters:
        return
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    dist.all_reduce(flat, group=process_group)
    flat /= dist.get_world_size(process_group)
    for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        # `cat` took the widest type among them; nothing is lost on the way back.
        parameter.grad = piece.view_as(parameter).to(parameter.dtype)


class FlatDDP(DataParallel):
    """One blocking all-reduce for all gradients, after the backward pass; arguments as for `DataParallel`."""

    def finish_gradient_synchronization(self) -> None:
        average_flat(self._used_anywhere(), self.process_group)
