"""Four processes in every layout (pairs of data, pipeline and tensor parallelism, and a long pipeline): each trains as
a single process does."""

from functools import cache

import pytest
import torch
import torch.distributed as dist

from cs336_basics.command_line import UsageError
from cs336_systems.mesh import Mesh
from cs336_systems.model_parallel import ModelParallel
from cs336_systems.process_group import run_in_processes

from .parallel_cases import make_batches, make_model, make_optimizer, refusal, train_alone, train_together

LAYOUTS = {
    "pipeline of four, 1F1B": ({"pipeline": 4}, {"num_microbatches": 4}),
    "pipeline of four, GPipe": ({"pipeline": 4}, {"num_microbatches": 2, "schedule": "gpipe"}),
    "data x tensor": ({"data": 2, "tensor": 2}, {}),
    "data x tensor, sequence-parallel": ({"data": 2, "tensor": 2}, {"sequence_parallel": True}),
    "data x pipeline, 1F1B": ({"data": 2, "pipeline": 2}, {"num_microbatches": 4}),
    "data x pipeline, GPipe": ({"data": 2, "pipeline": 2}, {"num_microbatches": 2, "schedule": "gpipe"}),
    "pipeline x tensor": ({"pipeline": 2, "tensor": 2}, {"num_microbatches": 4}),
    "pipeline x tensor, sequence-parallel": (
        {"pipeline": 2, "tensor": 2},
        {"num_microbatches": 8, "sequence_parallel": True},
    ),
}
CASES = [
    *((layout, "tied, post-norm, qk-norm") for layout in LAYOUTS),
    *(
        (layout, "default")
        for layout in ("pipeline of four, GPipe", "data x tensor", "data x pipeline, GPipe", "pipeline x tensor")
    ),
    ("pipeline x tensor", "no norms, SiLU, NoPE"),
]
RELAY = (
    "data x tensor",
    "pipeline x tensor",
    "pipeline of four, 1F1B",
    "data x pipeline, 1F1B",
    "data x tensor, sequence-parallel",
)


@cache  # making process groups is what takes the time
def _mesh(data=1, pipeline=1, tensor=1):
    return Mesh(data, pipeline, tensor)


def _members(mesh):
    """Which ranks each of the mesh's groups reaches, this rank's place in it, and how it is shown."""
    sums = {}
    for name in (*mesh.shape, "model"):
        value = torch.tensor(2.0 ** dist.get_rank())
        dist.all_reduce(value, group=getattr(mesh, f"{name}_group"))
        sums[name] = [rank for rank in range(dist.get_world_size()) if int(value) >> rank & 1]
    return sums, (mesh.data_rank, mesh.pipeline_rank, mesh.tensor_rank), repr(mesh)


def _parallel(layout, shape):
    sizes, settings = LAYOUTS[layout]
    parallel = ModelParallel(make_model(shape), _mesh(**sizes), **settings)
    return parallel, make_optimizer(parallel.module)


def _rank():
    results = {"members": _members(_mesh(data=2, tensor=2))}
    for layout, shape in CASES:
        parallel, optimizer = _parallel(layout, shape)
        curve = train_together(parallel, optimizer, make_batches())
        results[layout, shape] = curve, parallel.gather_state_dict()
    # One step on each layout after the other; everything goes through gathered states.
    shape, curve, states = "tied, post-norm, qk-norm", [], None
    for layout, batch in zip(RELAY, make_batches(), strict=False):
        parallel, optimizer = _parallel(layout, shape)
        if states is not None:
            parallel.load_full_state_dict(states[0])
            parallel.load_optimizer_state(optimizer, states[1])
        curve += train_together(parallel, optimizer, [batch])
        states = parallel.gather_state_dict(), parallel.gather_optimizer_state(optimizer)
    results["relay"] = curve, states
    inputs, targets = make_batches(1, batch_size=3)[0]
    results["uneven"] = refusal(_parallel("data x tensor", "default")[0].backward, inputs, targets)
    return results


@pytest.fixture(scope="module")
def ranks():
    return run_in_processes(_rank, 4)


@pytest.mark.slow
def test_groups_reach_the_ranks_they_should(ranks):
    members = [results["members"] for results in ranks]
    assert [sums["tensor"] for sums, _, _ in members] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert [sums["model"] for sums, _, _ in members] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert [sums["data"] for sums, _, _ in members] == [[0, 2], [1, 3], [0, 2], [1, 3]]
    assert [sums["pipeline"] for sums, _, _ in members] == [[0], [1], [2], [3]]
    assert [place for _, place, _ in members] == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]
    assert members[2][2] == "Mesh(data 2 of 2, pipeline 1 of 1, tensor 1 of 2)"


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "shape"), CASES)
def test_trains_as_a_single_process(ranks, layout, shape):
    model = make_model(shape)
    expected = train_alone(model, make_batches())
    for results in ranks:
        curve, state = results[layout, shape]
        assert curve == [pytest.approx(pair, rel=1e-9) for pair in expected]
        assert state.keys() == model.state_dict().keys()
        torch.testing.assert_close(state, dict(model.state_dict()), rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_checkpoints_go_from_layout_to_layout(ranks):
    model = make_model("tied, post-norm, qk-norm")
    expected = train_alone(model, make_batches(len(RELAY)))
    for results in ranks:
        curve, (state, optimizer_state) = results["relay"]
        assert curve == [pytest.approx(pair, rel=1e-9) for pair in expected]
        model.load_state_dict(state)  # and to a single process
        assert optimizer_state.keys() == dict(model.named_parameters()).keys()
        for name, parameter in model.named_parameters():
            assert optimizer_state[name]["step"] == len(RELAY)
            assert optimizer_state[name]["exp_avg"].shape == parameter.shape


@pytest.mark.slow
def test_a_batch_that_the_copies_cannot_share_is_refused(ranks):
    for results in ranks:
        kind, message = results["uneven"]
        assert kind == UsageError.__name__
        assert message == "2 data-parallel copies cannot share 3 sequences; give a multiple"
