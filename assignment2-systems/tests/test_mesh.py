"""The grid of ranks, as lists; `test_parallel_combinations.py` has the groups made from them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_systems.mesh import AXES, check_mesh, ranks_along

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
