"""The grid of ranks."""

import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_systems.mesh import AXES, Mesh, check_mesh, ranks_along
from cs336_systems.process_group import run_in_processes

shapes = st.tuples(*(st.integers(1, 5) for _ in AXES)).map(lambda sizes: dict(zip(AXES, sizes, strict=True)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(shape=shapes, axes=st.sets(st.sampled_from(AXES)).map(tuple))
def test_lists_divide_all_ranks_into_groups_of_the_right_size(shape, axes):
    lists = ranks_along(shape, axes)
    assert sorted(rank for ranks in lists for rank in ranks) == list(range(math.prod(shape.values())))
    assert {len(ranks) for ranks in lists} == {math.prod(shape[axis] for axis in axes)}
    assert all(ranks == sorted(ranks) for ranks in lists)


def test_tensor_ranks_are_neighbors_and_data_ranks_far_apart():
    shape = {"data": 2, "pipeline": 2, "tensor": 2}
    assert ranks_along(shape, ("tensor",)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert ranks_along(shape, ("pipeline",)) == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert ranks_along(shape, ("data",)) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert ranks_along(shape, ("pipeline", "tensor")) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_mesh_that_does_not_fill_the_ranks_is_refused():
    check_mesh({"data": 2, "pipeline": 1, "tensor": 3}, 6)
    with pytest.raises(UsageError, match="data 2 x pipeline 1 x tensor 2 needs 4 processes, but there are 6"):
        check_mesh({"data": 2, "pipeline": 1, "tensor": 2}, 6)
    with pytest.raises(UsageError, match="tensor parallelism is 0; allowed"):
        check_mesh({"data": 2, "pipeline": 1, "tensor": 0}, 2)


def _members(shape):
    mesh = Mesh(**shape)
    sums = {}
    for name in ("data", "pipeline", "tensor", "model"):
        value = torch.tensor(2.0 ** dist.get_rank())
        dist.all_reduce(value, group=getattr(mesh, f"{name}_group"))
        sums[name] = [rank for rank in range(dist.get_world_size()) if int(value) >> rank & 1]
    return sums, (mesh.data_rank, mesh.pipeline_rank, mesh.tensor_rank), repr(mesh)


@pytest.mark.slow
def test_groups_reach_the_ranks_they_should():
    results = run_in_processes(_members, 4, {"data": 2, "pipeline": 1, "tensor": 2})
    assert [sums["tensor"] for sums, _, _ in results] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert [sums["model"] for sums, _, _ in results] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert [sums["data"] for sums, _, _ in results] == [[0, 2], [1, 3], [0, 2], [1, 3]]
    assert [sums["pipeline"] for sums, _, _ in results] == [[0], [1], [2], [3]]
    assert [place for _, place, _ in results] == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]
    assert results[2][2] == "Mesh(data 2 of 2, pipeline 1 of 1, tensor 1 of 2)"
