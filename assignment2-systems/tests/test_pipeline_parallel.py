"""Pipeline parallelism: schedules as lists, the division into stages, and training against a single process."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.accounting import forward_flops
from cs336_basics.command_line import UsageError
from cs336_basics.model import TransformerConfig
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.mesh import Mesh
from cs336_systems.model_parallel import ModelParallel
from cs336_systems.pipeline_parallel import SCHEDULES, PipelineParallel, bubble_fraction, chart, split_layers
from cs336_systems.pipeline_parallel.schedules import (
    Action,
    find_schedule,
    forward_only,
    gpipe,
    most_in_flight,
    one_forward_one_backward,
    timeline,
    transfers,
)
from cs336_systems.process_group import run_in_processes

from .parallel_cases import SHAPES, make_batches, make_model, make_optimizer, refusal, train_alone, train_together

sizes = st.tuples(st.integers(1, 8), st.integers(1, 12))  # stages, microbatches
schedules = st.sampled_from(list(SCHEDULES.values()))
quick = settings(max_examples=60, deadline=None, derandomize=True)


@quick
@given(schedule=schedules, size=sizes)
def test_each_microbatch_goes_forward_and_then_backward_once(schedule, size):
    num_stages, num_microbatches = size
    for stage in range(num_stages):
        actions = schedule(stage, num_stages, num_microbatches)
        for kind in ("forward", "backward"):
            order = [action.microbatch for action in actions if action.kind == kind]
            assert order == list(range(num_microbatches))  # so that neighbors agree on the order of messages
        for index in range(num_microbatches):
            assert actions.index(Action("forward", index)) < actions.index(Action("backward", index))


@quick
@given(size=sizes)
def test_activations_in_flight(size):
    num_stages, num_microbatches = size
    for stage in range(num_stages):
        assert most_in_flight(gpipe(stage, num_stages, num_microbatches)) == num_microbatches
        kept = most_in_flight(one_forward_one_backward(stage, num_stages, num_microbatches))
        assert kept == min(num_stages - stage, num_microbatches)


@quick
@given(schedule=schedules, size=sizes, backward_time=st.integers(1, 4))
def test_idle_time_is_the_bubble_fraction(schedule, size, backward_time):
    num_stages, num_microbatches = size
    rows = timeline(schedule, num_stages, num_microbatches, backward_time)
    end = max(row[-1].stop for row in rows)
    busy = num_microbatches * (1 + backward_time)
    for row in rows:
        assert sum(timed.stop - timed.start for timed in row) == busy
        assert all(before.stop <= after.start for before, after in itertools.pairwise(row))
    assert 1 - busy / end == pytest.approx(bubble_fraction(num_stages, num_microbatches))


def _run_with_rendezvous(plans):
    """Whether all stages get through their batches of messages when a send waits for its receive, and a batch for all
    its messages before the next one starts: the strictest that a communication library may be."""
    plans = [list(plan) for plan in plans]
    pending = [list(plan.pop(0)) for plan in plans]

    moved = True
    while moved:
        moved = False
        for stage, plan in enumerate(plans):
            while not pending[stage] and plan:
                pending[stage] = list(plan.pop(0))
                moved = True
            for transfer in pending[stage]:
                match = [
                    other
                    for other in pending[transfer.peer]
                    if (other.peer, other.action) == (stage, transfer.action) and other.is_send != transfer.is_send
                ]
                if match:
                    pending[stage].remove(transfer)
                    pending[transfer.peer].remove(match[0])
                    moved = True
                    break
    return not any(pending) and not any(plans)


@quick
@given(schedule=st.sampled_from([*SCHEDULES.values(), forward_only]), size=sizes)
def test_messages_never_wait_for_each_other(schedule, size):
    num_stages, num_microbatches = size
    lists = [schedule(stage, num_stages, num_microbatches) for stage in range(num_stages)]
    plans = [transfers(actions, stage, num_stages) for stage, actions in enumerate(lists)]
    assert _run_with_rendezvous(plans)
    for stage, plan in enumerate(plans):
        passes = len(lists[stage])
        ends = (stage > 0) + (stage < num_stages - 1)  # each pass has one message on each side but at the ends
        assert sum(map(len, plan)) == passes * ends


def test_unbatched_messages_would_wait_for_each_other():
    """Sends before receives, one at a time: what the batches are for."""
    plans = [transfers(one_forward_one_backward(stage, 2, 4), stage, 2) for stage in range(2)]
    single = [
        [[transfer] for batch in plan for transfer in sorted(batch, key=lambda t: not t.is_send)] for plan in plans
    ]
    assert _run_with_rendezvous(plans)
    assert not _run_with_rendezvous(single)


def test_a_schedule_that_waits_for_itself_is_noticed():
    def backwards(stage, num_stages, num_microbatches):
        return gpipe(stage, num_stages, num_microbatches)[::-1]

    with pytest.raises(ValueError, match="wait for each other"):
        timeline(backwards, 2, 2)


def test_schedules_can_be_read():
    assert " ".join(map(str, one_forward_one_backward(0, 2, 3))) == "F0 F1 B0 F2 B1 B2"
    assert chart(one_forward_one_backward, 2, 2).splitlines() == [
        "stage 0  F0 F1 ······B0    ···B1",
        "stage 1  ···F0 B0    F1 B1",
    ]
    assert chart(gpipe, 2, 2).splitlines() == [
        "stage 0  F0 F1 ·········B0    B1",
        "stage 1  ···F0 F1 B0    B1",
    ]
    with pytest.raises(UsageError, match="schedule 'zigzag' is unknown; allowed are gpipe, 1f1b"):
        find_schedule("zigzag")


@quick
@given(num_layers=st.integers(1, 8), stages=st.integers(1, 9), vocab_size=st.sampled_from([10, 500, 2000, 10_000]))
def test_stages_are_as_balanced_as_can_be(num_layers, stages, vocab_size):
    config = TransformerConfig(vocab_size=vocab_size, num_layers=num_layers, d_model=32, num_heads=2, d_ff=64)
    if stages > num_layers + 1:
        with pytest.raises(UsageError, match=f"allowed are 1 to {num_layers + 1}"):
            split_layers(config, stages)
        return
    ranges = split_layers(config, stages)
    assert len(ranges) == stages
    assert [index for blocks in ranges for index in blocks] == list(range(num_layers))
    flops = forward_flops(config)
    head = flops.pop("output head")
    block = sum(flops.values()) / num_layers

    def highest(counts):
        return max([*(block * count for count in counts[:-1]), block * counts[-1] + head])

    every = (
        [after - before for before, after in itertools.pairwise((0, *cuts, num_layers))]
        for cuts in itertools.combinations_with_replacement(range(num_layers + 1), stages - 1)
    )
    allowed = [counts for counts in every if all(counts[:-1])]  # only the head's stage may be without blocks
    assert highest([len(blocks) for blocks in ranges]) == pytest.approx(min(map(highest, allowed)))


def test_a_large_head_is_a_stage_of_its_own():
    gpt2 = TransformerConfig(vocab_size=50_257, context_length=1024, d_model=768, num_layers=12, num_heads=12)
    assert [len(blocks) for blocks in split_layers(gpt2, 4)] == [4, 4, 4, 0]


CASES = [(schedule, shape, 4) for schedule in SCHEDULES for shape in SHAPES]
CASES += [("1f1b", "default", 1), ("gpipe", "default", 8)]


def _train(mesh, shape, **settings):
    parallel = ModelParallel(make_model(shape), mesh, **settings)
    curve = train_together(parallel, make_optimizer(parallel.module), make_batches())
    return curve, parallel.gather_state_dict()


def _two_ranks():
    mesh = Mesh(pipeline=2)
    results = {
        (schedule, shape, count): _train(mesh, shape, schedule=schedule, num_microbatches=count)
        for schedule, shape, count in CASES
    }
    inputs, targets = make_batches(1)[0]
    model = make_model("tied, post-norm, qk-norm")
    pipeline = PipelineParallel(model, mesh.pipeline_group)
    results["evaluation"] = pipeline.evaluate(inputs, targets, num_microbatches=2)
    results["evaluation leaves gradients"] = [name for name, p in pipeline.named_parameters() if p.grad is not None]
    pipeline.train_step(inputs, targets, num_microbatches=4)
    results["gradients"] = {name: parameter.grad for name, parameter in pipeline.named_parameters()}

    single = PipelineParallel(make_model("tied, post-norm, qk-norm"), mesh.data_group)  # a group of one
    single.train_step(inputs, targets, num_microbatches=4)
    results["one stage"] = {name: parameter.grad for name, parameter in single.named_parameters()}

    frozen = make_model()
    for name, parameter in frozen.named_parameters():
        parameter.requires_grad_(name.startswith(("layers.3", "lm_head")))
    stage = PipelineParallel(frozen, mesh.pipeline_group, "gpipe")
    stage.train_step(inputs, targets, num_microbatches=4)
    results["frozen"] = {name: p.grad for name, p in stage.named_parameters() if p.grad is not None}

    half = PipelineParallel(make_model(dtype=torch.float32), mesh.pipeline_group, autocast_dtype=torch.bfloat16)
    results["autocast"] = half.train_step(inputs, targets, num_microbatches=2)

    state = make_model().state_dict()
    untied = PipelineParallel(make_model(), mesh.pipeline_group)
    lacking = {name: value for name, value in state.items() if "w1" not in name}
    results["refusals"] = {
        "microbatches": refusal(pipeline.train_step, inputs, targets, 3),
        "no microbatch": refusal(pipeline.train_step, inputs, targets, 0),
        "length": refusal(pipeline.evaluate, inputs.repeat(1, 2), targets.repeat(1, 2)),
        "schedule": refusal(PipelineParallel, model, mesh.pipeline_group, "2f2b"),
        "unknown": refusal(untied.load_full_state_dict, {**state, "layers.4.ln1.weight": torch.ones(16)}),
        "missing": refusal(untied.load_full_state_dict, lacking),
        "shape": refusal(untied.load_full_state_dict, {name: value[:3] for name, value in state.items()}),
    }
    return results


@pytest.fixture(scope="module")
def pair():
    return run_in_processes(_two_ranks, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "shape", "num_microbatches"), CASES)
def test_two_stages_train_as_a_single_process(pair, schedule, shape, num_microbatches):
    model = make_model(shape)
    expected = train_alone(model, make_batches())
    for results in pair:
        curve, state = results[schedule, shape, num_microbatches]
        assert curve == [pytest.approx(values, rel=1e-9) for values in expected]
        assert state.keys() == model.state_dict().keys()
        torch.testing.assert_close(state, dict(model.state_dict()), rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_evaluation_needs_no_gradients(pair):
    model = make_model("tied, post-norm, qk-norm")
    inputs, targets = make_batches(1)[0]
    for results in pair:
        torch.testing.assert_close(results["evaluation"], cross_entropy(model(inputs), targets).detach())
        assert results["evaluation leaves gradients"] == []


@pytest.mark.slow
def test_both_copies_of_a_tied_embedding_get_the_whole_gradient(pair):
    model = make_model("tied, post-norm, qk-norm")
    inputs, targets = make_batches(1)[0]
    cross_entropy(model(inputs), targets).backward()
    first, last = (results["gradients"] for results in pair)
    assert torch.equal(first["token_embeddings.weight"], last["lm_head.weight"])
    torch.testing.assert_close(first["token_embeddings.weight"], model.token_embeddings.weight.grad)


@pytest.mark.slow
def test_a_single_stage_accumulates_the_gradients_of_microbatches(pair):
    model = make_model("tied, post-norm, qk-norm")
    inputs, targets = make_batches(1)[0]
    cross_entropy(model(inputs), targets).backward()
    for results in pair:
        expected = {name: parameter.grad for name, parameter in model.named_parameters()}
        torch.testing.assert_close(results["one stage"], expected)


@pytest.mark.slow
def test_a_stage_may_be_frozen(pair):
    model = make_model()
    inputs, targets = make_batches(1)[0]
    cross_entropy(model(inputs), targets).backward()
    assert pair[0]["frozen"] == {}
    expected = {name: p.grad for name, p in model.named_parameters() if name.startswith(("layers.3", "lm_head"))}
    torch.testing.assert_close(pair[1]["frozen"], expected)


@pytest.mark.slow
def test_half_precision_products(pair):
    model = make_model(dtype=torch.float32)
    inputs, targets = make_batches(1)[0]
    with torch.autocast("cpu", torch.bfloat16):
        expected = cross_entropy(model(inputs), targets).item()
    assert expected != cross_entropy(model(inputs), targets).item()
    for results in pair:
        assert results["autocast"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_bad_input_is_refused_in_a_sentence(pair):
    refusals = pair[0]["refusals"]
    assert {kind for kind, _ in refusals.values()} == {UsageError.__name__}
    messages = {name: message for name, (_, message) in refusals.items()}
    expected = "3 microbatches cannot share 8 sequences equally; allowed are the divisors of the batch size"
    assert messages["microbatches"] == expected
    assert messages["no microbatch"].startswith("0 microbatches cannot share 8 sequences")
    assert messages["length"] == "16 tokens do not fit the context length of 8"
    assert messages["schedule"] == "schedule '2f2b' is unknown; allowed are gpipe, 1f1b"
    assert "has layers.4.ln1.weight, which this model has not" in messages["unknown"]
    assert "lacks layers.0.ffn.w1.weight" in messages["missing"]
    assert messages["shape"] == "token_embeddings.weight has the shape (3, 16); allowed is (67, 16)"
