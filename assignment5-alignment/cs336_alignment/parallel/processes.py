"""The processes of the default process group, as those that share a run's work."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from cs336_alignment.parallel.config import ParallelConfig
from cs336_alignment.training.processes import Processes


class ProcessGroup(Processes):
    """This process in the default process group."""

    def __init__(self) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        # Flags live on the CPU; asking for them there lets a GPU go on computing.
        self._control_group = dist.new_group(backend="gloo")

    def sum_over_processes(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        total = value.clone()
        dist.all_reduce(total)
        return total

    def agree(self, flag: bool) -> bool:
        mine = torch.tensor(int(flag))
        dist.all_reduce(mine, dist.ReduceOp.MAX, group=self._control_group)
        return bool(mine)

    def gather(self, values: list[Any]) -> list[Any]:
        lists: list[list[Any]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(lists, values, group=self._control_group)
        return [value for part in lists for value in part]


def sharing_processes(config: ParallelConfig) -> Processes:
    """The processes that the settings let share the work."""
    return Processes() if config.parallel == "none" else ProcessGroup()
