"""Flat data parallelism: when the backward pass is over, all-reduce all gradients as one long vector.

One large message pays the latency of a collective once instead of once per parameter.
"""

import torch
import torch.distributed as dist

from cs336_systems.data_parallel.base import DataParallel


class FlatDDP(DataParallel):
    """One blocking all-reduce for all gradients, after the backward pass; arguments as for `DataParallel`.

    Until the next `zero_grad`, each `.grad` is a view of that one vector.
    """

    def finish_gradient_synchronization(self) -> None:
        parameters = self._used_anywhere()
        if not parameters:
            return
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        dist.all_reduce(flat, group=self.process_group)
        flat /= self.world_size
        pieces = flat.split([parameter.numel() for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            # `cat` took the widest type among them; nothing is lost on the way back.
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)
