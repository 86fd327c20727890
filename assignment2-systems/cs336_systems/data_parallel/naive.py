"""Naive data parallelism: when the backward pass is over, all-reduce one gradient after the other."""

import torch.distributed as dist

from cs336_systems.data_parallel.base import DataParallel


class NaiveDDP(DataParallel):
    """One blocking all-reduce per parameter, after the backward pass; arguments as for `DataParallel`."""

    def finish_gradient_synchronization(self) -> None:
        for parameter in self._used_anywhere():
            dist.all_reduce(parameter.grad, group=self.process_group)
            parameter.grad /= self.world_size
