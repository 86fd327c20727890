"""A grid of ranks: data x pipeline x tensor parallelism, with one process group along each axis.

Ranks are counted with the tensor axis fastest and the data axis slowest (Narayanan et al. 2021,
https://arxiv.org/abs/2104.04473, section 3): tensor parallelism talks the most, so its ranks should be neighbors on one
machine; data parallelism talks once a step, so its ranks may be far apart.
"""

import itertools

import torch.distributed as dist

from cs336_basics.command_line import UsageError

AXES = ("data", "pipeline", "tensor")
"""From the slowest to the fastest."""


class Mesh:
    """The process groups of this rank, and its place in each. Every rank of the default group makes the same mesh.

    Args:
        data: copies of the model, each trained on its own part of a batch.
        pipeline: stages that the layers of one copy are divided into.
        tensor: shards that every layer is divided into.

    Attributes:
        shape: ranks along each axis.
        data_group, pipeline_group, tensor_group: the ranks that differ from this one along that axis alone.
        model_group: the ranks that hold one copy of the model together (pipeline x tensor).
        data_rank, pipeline_rank, tensor_rank: this rank's place in them, from 0.

    Raises:
        UsageError: a size is below 1, or their product is not the number of ranks.
    """

    def __init__(self, data: int = 1, pipeline: int = 1, tensor: int = 1) -> None:
        self.shape = dict(zip(AXES, (data, pipeline, tensor), strict=True))
        check_mesh(self.shape, dist.get_world_size())
        groups = {axis: self._make_groups((axis,)) for axis in AXES}
        self.data_group, self.pipeline_group, self.tensor_group = (groups[axis] for axis in AXES)
        self.model_group = self._make_groups(("pipeline", "tensor"))
        self.data_rank, self.pipeline_rank, self.tensor_rank = (dist.get_rank(groups[axis]) for axis in AXES)

    def _make_groups(self, axes: tuple[str, ...]) -> dist.ProcessGroup:
        """This rank's group along `axes`. Each rank takes part in making all of them, as torch demands."""
        mine = None
        for ranks in ranks_along(self.shape, axes):
            group = dist.new_group(ranks)
            if dist.get_rank() in ranks:
                mine = group
        assert mine is not None  # the lists divide all ranks among themselves
        return mine

    def __repr__(self) -> str:
        places = {"data": self.data_rank, "pipeline": self.pipeline_rank, "tensor": self.tensor_rank}
        return "Mesh(" + ", ".join(f"{axis} {places[axis] + 1} of {size}" for axis, size in self.shape.items()) + ")"


def check_mesh(shape: dict[str, int], world_size: int) -> None:
    """Refuse a grid that does not fill the ranks.

    Raises:
        UsageError: a size is below 1, or their product is not `world_size`.
    """
    product = 1
    for axis, size in shape.items():
        if size < 1:
            raise UsageError(f"{axis} parallelism is {size}; allowed is any whole number of at least 1")
        product *= size
    if product != world_size:
        sizes = " x ".join(f"{axis} {size}" for axis, size in shape.items())
        raise UsageError(
            f"{sizes} needs {product} processes, but there are {world_size}; allowed is a product equal to it"
        )


def ranks_along(shape: dict[str, int], axes: tuple[str, ...]) -> list[list[int]]:
    """All ranks, divided into lists whose members differ along `axes` alone; each list in ascending order.

    Args:
        shape: ranks along each axis, the slowest first.
        axes: names of axes.
    """
    lists: dict[tuple[int, ...], list[int]] = {}
    for rank, place in enumerate(itertools.product(*(range(size) for size in shape.values()))):
        elsewhere = tuple(index for axis, index in zip(shape, place, strict=True) if axis not in axes)
        lists.setdefault(elsewhere, []).append(rank)
    return list(lists.values())
