"""Tensor parallelism: each divided layer, the loss and whole training runs against the single process."""

from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM, Embedding, Linear, RMSNorm
from cs336_systems.mesh import Mesh
from cs336_systems.model_parallel import ModelParallel
from cs336_systems.process_group import run_in_processes
from cs336_systems.tensor_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    gather_optimizer_state,
    gather_state_dict,
    language_model_loss,
    load_full_state_dict,
    load_optimizer_state,
    tensor_parallelize,
    vocab_parallel_cross_entropy,
)
from cs336_systems.tensor_parallel.collectives import shard_range
from cs336_systems.tensor_parallel.layers import SharedGainRMSNorm

from .parallel_cases import (
    SHAPES,
    VOCAB_SIZE,
    make_batches,
    make_model,
    make_optimizer,
    refusal,
    train_alone,
    train_together,
)

NUM_RANKS = 2
TIED = "tied, post-norm, qk-norm"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(size=st.integers(0, 100), num_ranks=st.integers(1, 9))
def test_ranges_divide_all_indices_evenly(size, num_ranks):
    ranges = [shard_range(size, rank, num_ranks) for rank in range(num_ranks)]
    assert [index for part in ranges for index in part] == list(range(size))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def _example(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _linear():
    torch.manual_seed(2)
    return Linear(6, 11, dtype=torch.float64)


def _backward(module, x, grad):
    """Output, gradient of the input (if it has one) and gradient of the weight."""
    x = x.clone().requires_grad_(x.is_floating_point())
    out = module(x)
    out.backward(grad)
    return out.detach(), x.grad, module.weight.grad


def _mine(x, dim):
    part = shard_range(x.shape[dim], dist.get_rank(), NUM_RANKS)
    return x.narrow(dim, part.start, len(part))


def _layers(group):
    x, grad = _example(2, 4, 6), _example(2, 4, 11, seed=4)
    torch.manual_seed(2)
    row, table = Linear(7, 5, dtype=torch.float64), Embedding(VOCAB_SIZE, 5, dtype=torch.float64)
    ids = make_batches(1)[0][0]
    sequence = {"sequence_parallel": True}
    row_x, row_grad = _example(2, 4, 7), _example(2, 4, 5, seed=5)
    ids_grad = _example(*ids.shape, 5, seed=6)
    norm = SharedGainRMSNorm(RMSNorm(6, dtype=torch.float64), group)
    return {
        "column": _backward(ColumnParallelLinear(_linear(), group), x, _mine(grad, -1)),
        "gathered column": _backward(ColumnParallelLinear(_linear(), group, gather_output=True), x, grad),
        "sequence column": _backward(
            ColumnParallelLinear(_linear(), group, **sequence), _mine(x, 1), _mine(grad, -1)
        ),
        "row": _backward(RowParallelLinear(row, group), _mine(row_x, -1), row_grad),
        "sequence row": _backward(RowParallelLinear(row, group, **sequence), _mine(row_x, -1), _mine(row_grad, 1)),
        "embedding": _backward(VocabParallelEmbedding(table, group), ids, ids_grad),
        "sequence embedding": _backward(VocabParallelEmbedding(table, group, **sequence), ids, _mine(ids_grad, 1)),
        "norm": _backward(norm, _mine(x, 1), _mine(x, 1)),
    }  # fmt: skip


def _logits(scale, dtype=torch.float64):
    return (_example(3, 5, VOCAB_SIZE) * scale).to(dtype)


def _targets():
    return torch.randint(VOCAB_SIZE, (3, 5), generator=torch.Generator().manual_seed(7))


LOSS_CASES = [(1.0, torch.float64), (1e5, torch.float64), (3.0, torch.bfloat16)]


def _loss(group, scale, dtype):
    logits = _mine(_logits(scale, dtype), -1).clone().requires_grad_()
    loss = vocab_parallel_cross_entropy(logits, _targets(), VOCAB_SIZE, group)
    (2 * loss).backward()
    return loss.detach(), logits.grad


class _Spy:
    """Counts collectives and the elements they move, and lets them through."""

    def __init__(self, *names):
        self.calls = {name: [] for name in names}
        self._patches = [mock.patch.object(dist, name, self._wrap(name, getattr(dist, name))) for name in names]

    def _wrap(self, name, function):
        def counted(tensor, *arguments, **keywords):
            self.calls[name].append(tensor.numel())
            return function(tensor, *arguments, **keywords)

        return counted

    def __enter__(self):
        for patch in self._patches:
            patch.start()
        return self.calls

    def __exit__(self, *_):
        for patch in self._patches:
            patch.stop()


def _is_tied(group):
    model = tensor_parallelize(make_model(TIED), group)
    return model.lm_head.weight is model.token_embeddings.weight


def _messages(group, sequence_parallel):
    model = tensor_parallelize(make_model(), group, sequence_parallel=sequence_parallel)
    inputs, targets = make_batches(1)[0]
    with _Spy("all_reduce", "all_gather_single", "reduce_scatter_single") as calls:
        logits = model(inputs)
        forward = {name: len(sizes) for name, sizes in calls.items()}
        loss = language_model_loss(model)(logits, targets)
        loss.backward()
    return forward, calls


def _resumed(group):
    """Five steps of which a single process did the first three."""
    batches = make_batches()
    alone = make_model(TIED)
    optimizer = make_optimizer(alone)
    for inputs, targets in batches[:3]:
        optimizer.zero_grad()
        F.cross_entropy(alone(inputs).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    # Never whole on any rank: made without memory, divided, and filled from the state.
    with torch.device("meta"):
        model = tensor_parallelize(make_model(TIED), group)
    model.to_empty(device="cpu")
    model.lm_head.weight = model.token_embeddings.weight
    own = make_optimizer(model)
    load_full_state_dict(model, alone.state_dict(), group)
    load_optimizer_state(model, own, gather_optimizer_state(alone, optimizer, None), group)
    for inputs, targets in batches[3:]:
        own.zero_grad()
        language_model_loss(model)(model(inputs), targets).backward()
        own.step()
    return gather_state_dict(model, group), gather_optimizer_state(model, own, group)


def _train(mesh, shape, sequence_parallel=False, dtype=torch.float64):
    parallel = ModelParallel(make_model(shape, dtype), mesh, sequence_parallel=sequence_parallel)
    curve = train_together(parallel, make_optimizer(parallel.module), make_batches())
    return curve, parallel.gather_state_dict(), sum(p.numel() for p in parallel.module.parameters())


def _refusals(group):
    def divide(**sizes):
        shape = {"vocab_size": 10, "context_length": 8, "d_model": 12, "num_layers": 1, "num_heads": 2, "d_ff": 8}
        return tensor_parallelize(BasicsTransformerLM(**{**shape, **sizes}), group)

    inputs, targets = make_batches(1)[0]
    model = tensor_parallelize(make_model(), group)
    loss_fn = language_model_loss(model)
    with torch.no_grad():
        logits = model(inputs)
    sequence = tensor_parallelize(make_model(), group, sequence_parallel=True)
    state = make_model().state_dict()
    return {
        "heads": refusal(divide, num_heads=3),
        "d_ff": refusal(divide, d_ff=9),
        "vocabulary": refusal(divide, vocab_size=1),
        "weight": refusal(RowParallelLinear, Linear(1, 4), group),
        "odd length": refusal(sequence, inputs[:, :7]),
        "id": refusal(model, torch.tensor([[0, VOCAB_SIZE]])),
        "target": refusal(loss_fn, logits, targets.fill_(-1)),
        "logits": refusal(loss_fn, logits[..., :-1], targets),
        "no targets": refusal(loss_fn, logits[:0], targets[:0]),
        "missing": refusal(load_full_state_dict, model, {}, group),
        "unknown": refusal(load_full_state_dict, model, {**state, "bias": torch.ones(1)}, group),
        "shape": refusal(load_full_state_dict, model, {**state, "lm_head.weight": torch.ones(3, 3)}, group),
        "optimizer": refusal(load_optimizer_state, model, make_optimizer(model), {}, group),
    }


def _rank():
    mesh = Mesh(tensor=NUM_RANKS)
    group = mesh.tensor_group
    results = {
        "layers": _layers(group),
        "losses": [_loss(group, *case) for case in LOSS_CASES],
        "messages": [_messages(group, sequence_parallel) for sequence_parallel in (False, True)],
        "resumed": _resumed(group),
        "tied": _is_tied(group),
        "float32": _train(mesh, "default", dtype=torch.float32)[0],
        "gathered logits": tensor_parallelize(make_model(), group, gather_logits=True)(make_batches(1)[0][0]).detach(),
    }
    for shape in SHAPES:
        for sequence_parallel in (False, True):
            results["training", shape, sequence_parallel] = _train(mesh, shape, sequence_parallel)
    results["refusals"] = _refusals(group)
    return results


@pytest.fixture(scope="module")
def ranks():
    return run_in_processes(_rank, NUM_RANKS)


def _joined(ranks, layer, item, dim):
    """The ranks' shards of one item of a layer's results, side by side."""
    return torch.cat([results["layers"][layer][item] for results in ranks], dim)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "out_dim", "x_dim"), [("column", -1, None), ("gathered column", None, None), ("sequence column", -1, 1)]
)
def test_column_parallel_linear(ranks, layer, out_dim, x_dim):
    expected = _backward(_linear(), _example(2, 4, 6), _example(2, 4, 11, seed=4))
    for item, dim in enumerate((out_dim, x_dim, 0)):
        if dim is not None:
            torch.testing.assert_close(_joined(ranks, layer, item, dim), expected[item])
        else:  # the same on every rank
            for results in ranks:
                torch.testing.assert_close(results["layers"][layer][item], expected[item])


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "out_dim"), [("row", None), ("sequence row", 1)])
def test_row_parallel_linear(ranks, layer, out_dim):
    torch.manual_seed(2)
    expected = _backward(Linear(7, 5, dtype=torch.float64), _example(2, 4, 7), _example(2, 4, 5, seed=5))
    _check_sum(ranks, layer, out_dim, expected[0])
    torch.testing.assert_close(_joined(ranks, layer, 1, -1), expected[1])
    torch.testing.assert_close(_joined(ranks, layer, 2, 1), expected[2])


def _check_sum(ranks, layer, out_dim, expected):
    """Compare outputs that every rank has whole (None) or shares along a dimension."""
    if out_dim is None:
        for results in ranks:
            torch.testing.assert_close(results["layers"][layer][0], expected)
    else:
        torch.testing.assert_close(_joined(ranks, layer, 0, out_dim), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "out_dim"), [("embedding", None), ("sequence embedding", 1)])
def test_vocab_parallel_embedding(ranks, layer, out_dim):
    torch.manual_seed(2)
    Linear(7, 5, dtype=torch.float64)  # the draws before it
    ids = make_batches(1)[0][0]
    expected = _backward(Embedding(VOCAB_SIZE, 5, dtype=torch.float64), ids, _example(*ids.shape, 5, seed=6))
    _check_sum(ranks, layer, out_dim, expected[0])
    torch.testing.assert_close(_joined(ranks, layer, 2, 0), expected[2])


@pytest.mark.slow
def test_the_gain_of_a_norm_over_shares_gets_the_whole_gradient(ranks):
    x = _example(2, 4, 6)
    expected = _backward(RMSNorm(6, dtype=torch.float64), x, x)
    torch.testing.assert_close(_joined(ranks, "norm", 1, 1), expected[1])
    for results in ranks:
        torch.testing.assert_close(results["layers"]["norm"][2], expected[2])


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(LOSS_CASES)))
def test_the_loss_equals_torch(ranks, case):
    scale, dtype = LOSS_CASES[case]
    logits = _logits(scale, dtype).double().requires_grad_()
    loss = F.cross_entropy(logits.flatten(0, 1), _targets().flatten())
    (2 * loss).backward()
    is_half = dtype == torch.bfloat16
    for results in ranks:
        value, grad = results["losses"][case]
        assert value.dtype == (torch.float32 if is_half else dtype)
        assert grad.dtype == dtype
        torch.testing.assert_close(value.double(), loss.detach(), rtol=1e-6 if is_half else 1e-12, atol=0)
    grad = torch.cat([results["losses"][case][1] for results in ranks], -1).double()
    torch.testing.assert_close(grad, logits.grad, rtol=4e-3 if is_half else 1e-9, atol=1e-12)


@pytest.mark.slow
def test_messages_are_few_and_logits_are_never_gathered(ranks):
    tokens = make_batches(1)[0][0].numel()
    activations, blocks = tokens * 16, 4
    for results in ranks:
        (forward, calls), (sequence_forward, sequence_calls) = results["messages"]
        # One for the embedding and two for each block; backward, one for the head and two for each block.
        assert forward == {"all_reduce": 1 + 2 * blocks, "all_gather_single": 0, "reduce_scatter_single": 0}
        of_loss = [size for size in calls["all_reduce"] if size != activations]
        assert of_loss == [tokens, 2 * tokens]
        assert calls["all_reduce"].count(activations) == 2 * (1 + 2 * blocks)
        # An all-reduce's two halves, apart: no activation moves twice, and besides only the norms' gains are summed.
        assert sequence_forward == {
            "all_reduce": 0,
            "all_gather_single": 1 + 2 * blocks,
            "reduce_scatter_single": 1 + 2 * blocks,
        }
        assert sorted(set(sequence_calls["all_reduce"])) == sorted({16, tokens, 2 * tokens})
        assert sequence_calls["all_reduce"].count(16) == 2 * blocks + 1


@pytest.mark.slow
@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_trains_as_a_single_process(ranks, shape, sequence_parallel):
    model = make_model(shape)
    expected = train_alone(model, make_batches())
    total = sum(parameter.numel() for parameter in model.parameters())
    for results in ranks:
        curve, state, held = results["training", shape, sequence_parallel]
        assert curve == [pytest.approx(pair, rel=1e-9) for pair in expected]
        assert state.keys() == model.state_dict().keys()
        torch.testing.assert_close(state, dict(model.state_dict()), rtol=1e-6, atol=1e-8)
        assert held < 0.55 * total


@pytest.mark.slow
def test_trains_as_a_single_process_in_float32(ranks):
    expected = train_alone(make_model(dtype=torch.float32), make_batches())
    for results in ranks:
        assert results["float32"] == [pytest.approx(pair, rel=1e-5) for pair in expected]


@pytest.mark.slow
def test_a_single_process_checkpoint_goes_on_divided(ranks):
    model = make_model(TIED)
    optimizer = make_optimizer(model)
    for inputs, targets in make_batches():
        optimizer.zero_grad()
        F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    for results in ranks:
        state, optimizer_state = results["resumed"]
        torch.testing.assert_close(state, dict(model.state_dict()), rtol=1e-6, atol=1e-8)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(optimizer_state[name], optimizer.state[parameter], rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_tied_embeddings_stay_tied(ranks):
    assert all(results["tied"] for results in ranks)


@pytest.mark.slow
def test_logits_can_be_gathered(ranks):
    expected = make_model()(make_batches(1)[0][0]).detach()
    for results in ranks:
        torch.testing.assert_close(results["gathered logits"], expected)


@pytest.mark.slow
def test_bad_input_is_refused_in_a_sentence(ranks):
    usage, index, value = UsageError.__name__, IndexError.__name__, ValueError.__name__
    expected = {
        "heads": (usage, "2 tensor-parallel ranks do not divide num_heads 3; allowed are its divisors"),
        "d_ff": (usage, "2 tensor-parallel ranks do not divide d_ff 9; allowed are its divisors"),
        "vocabulary": (usage, "vocab_size 1 is less than the 2 tensor-parallel ranks"),
        "weight": (usage, "a weight of shape (4, 1) cannot be divided over 2 ranks along dimension 1"),
        "odd length": (usage, "sequence parallelism over 2 ranks cannot divide 7 tokens; give a multiple"),
        "id": (index, "token id 67 is out of range; allowed are 0 to 66"),
        "target": (index, "token id -1 is out of range; allowed are 0 to 66"),
        "logits": (value, "do not fit targets of shape (8, 8)"),
        "no targets": (value, "at least one target"),
        "missing": (usage, "the state dict lacks layers.0.attn.k_proj.weight"),
        "unknown": (usage, "the state dict has bias, which this model has not"),
        "shape": (usage, "lm_head.weight has the shape (3, 3); allowed is (67, 16)"),
        "optimizer": (usage, "the optimizer state lacks layers.0.attn.k_proj.weight"),
    }
    for results in ranks:
        assert results["refusals"].keys() == expected.keys()
        for name, (kind, message) in expected.items():
            assert results["refusals"][name][0] == kind, results["refusals"][name]
            assert message in results["refusals"][name][1]
