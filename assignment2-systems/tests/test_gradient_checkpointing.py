"""Checkpointed layers against torch.utils.checkpoint and plain autograd; saved tensors against counts by hand."""

import copy

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from cs336_basics.accounting import saved_activations
from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM, Linear, TransformerConfig
from cs336_basics.model.kv_cache import KeyValueCache
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.checkpointing.blockwise import bisection, checkpoint_layers
from cs336_systems.checkpointing.recompute import recompute
from cs336_systems.checkpointing.saved_tensors import count_saved_tensors
from cs336_systems.checkpointing.study import (
    Measurement,
    activation_bytes,
    least_memory,
    main,
    measure_blocks,
    parse_blocks,
)
from cs336_systems.checkpointing.theory import ActivationBytes
from cs336_systems.data_parallel import OverlappedDDP
from cs336_systems.fsdp import FSDP
from cs336_systems.process_group import run_in_processes
from cs336_systems.profiling.workload import Case, Workload

CONFIG = TransformerConfig(vocab_size=50, context_length=12, d_model=16, num_layers=6, num_heads=2, d_ff=24)
CHOICES = [(), (1,), (2,), (4,), (6,), (3, 1), (4, 2), (5, 3, 2, 1), bisection(6)]


def tokens() -> torch.Tensor:
    return torch.randint(CONFIG.vocab_size, (2, CONFIG.context_length + 1), generator=torch.Generator().manual_seed(1))


def model_of(**settings) -> BasicsTransformerLM:
    torch.manual_seed(0)
    return BasicsTransformerLM.from_config(CONFIG, **settings)


def gradients(model: nn.Module, autocast: bool = False, backward_inside: bool = False) -> dict[str, torch.Tensor]:
    """The loss and the gradient of each parameter."""
    batch = tokens()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = cross_entropy(model(batch[:, :-1]), batch[:, 1:])
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


class Dropping(nn.Module):
    """A layer that draws random numbers."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = Linear(d_model, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.dropout(self.linear(x), 0.5, train=True)


@pytest.mark.parametrize("block_sizes", CHOICES, ids=str)
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_gradients_are_those_without_checkpointing(block_sizes, autocast):
    expected = gradients(model_of(), autocast)
    assert_same(gradients(checkpoint_layers(model_of(), block_sizes), autocast), expected)


def test_gradients_are_those_of_torch_checkpoint():
    theirs = model_of()
    for layer in theirs.layers:
        forward = layer.forward
        layer.forward = lambda *inputs, run=forward: checkpoint(run, *inputs, use_reentrant=False)
    assert_same(gradients(checkpoint_layers(model_of(), 1)), gradients(theirs))


def test_backward_within_autocast_finds_the_weights():
    """The first, gradient-free run must not leave its cast weights to the second."""
    expected = gradients(model_of(), autocast=True, backward_inside=True)
    actual = gradients(checkpoint_layers(model_of(), 2), autocast=True, backward_inside=True)
    assert len(expected) == 1 + len(list(model_of().parameters()))
    assert_same(actual, expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_random_numbers_are_drawn_again_as_in_torch(use_reentrant):
    torch.manual_seed(0)
    layers = nn.Sequential(*(Dropping(8) for _ in range(3)))
    x = torch.randn(4, 8, requires_grad=True)
    results = {}
    for name, run in {
        "none": lambda layer, x: layer(x),
        "torch": lambda layer, x: checkpoint(layer, x, use_reentrant=use_reentrant),
        "ours": recompute,
    }.items():
        torch.manual_seed(7)
        layers.zero_grad()
        x.grad = None
        out = x
        for layer in layers:
            out = run(layer, out)
        out.square().sum().backward()
        # What is drawn afterwards does not depend on checkpointing either.
        results[name] = {"out": out.detach(), "x": x.grad, "after": torch.rand(3)} | {
            key: p.grad.clone() for key, p in layers.named_parameters()
        }
    assert_same(results["ours"], results["none"])
    assert_same(results["torch"], results["none"])


def test_without_keeping_the_random_state_the_numbers_differ():
    layer = Dropping(64)
    x = torch.ones(1, 64, requires_grad=True)
    torch.manual_seed(0)
    out = recompute(layer, x, keep_random_state=False)
    dropped = out.detach() == 1
    out.sum().backward()
    torch.manual_seed(0)
    layer.zero_grad()
    again = recompute(layer, x)
    assert torch.equal(again.detach() == 1, dropped)
    again.sum().backward()
    # Column sums of the kept rows only: row i of the weight has a gradient exactly where output i was kept.
    assert torch.equal(layer.linear.weight.grad.abs().sum(dim=1) == 0, dropped[0])


def test_inputs_that_need_no_gradient_and_frozen_layers():
    layer = Linear(4, 3)
    x = torch.randn(5, 4)
    recompute(layer, x).sum().backward()
    assert torch.equal(layer.weight.grad, x.sum(dim=0).expand(3, 4))
    layer.weight.grad = None
    layer.requires_grad_(False)
    recompute(layer, x).sum().backward()
    assert layer.weight.grad is None
    with torch.no_grad():
        assert not recompute(layer, x).requires_grad


def test_frozen_parameters_of_the_model():
    def frozen(model):
        model.token_embeddings.requires_grad_(False)
        model.layers[0].requires_grad_(False)
        model.layers[3].attn.requires_grad_(False)
        return model

    assert_same(gradients(checkpoint_layers(frozen(model_of()), 2)), gradients(frozen(model_of())))


def test_gradient_hooks_of_parameters_run_once_per_backward():
    counts: dict[str, int] = {}
    model = checkpoint_layers(model_of(), (4, 2))
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda _, name=name: counts.update({name: counts.get(name, 0) + 1})
        )
    gradients(model)
    assert counts == {name: 1 for name, _ in model.named_parameters()}


def test_layers_are_called_as_modules():
    """So wrappers that gather weights by hooks see both runs of a layer."""
    calls = []
    model = checkpoint_layers(model_of(), 3)
    for index, layer in enumerate(model.layers):
        layer.register_forward_pre_hook(lambda *_, index=index: calls.append(index))
    gradients(model)
    assert calls == [0, 1, 2, 3, 4, 5, 3, 4, 5, 0, 1, 2]


def _train_wrapped(wrap, block_sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """The parameters of this rank after two steps; each rank has other data."""
    model = checkpoint_layers(model_of(), block_sizes)
    wrapped = wrap(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    for step in range(2):
        torch.manual_seed(10 * step + dist.get_rank())
        batch = torch.randint(CONFIG.vocab_size, (2, CONFIG.context_length + 1))
        optimizer.zero_grad()
        cross_entropy(wrapped(batch[:, :-1]), batch[:, 1:]).backward()
        wrapped.finish_gradient_synchronization()
        optimizer.step()
    return [p.detach().clone() for p in wrapped.parameters()]


def _wrapped_results() -> dict[str, list[list[torch.Tensor]]]:
    return {
        wrap.__name__: [_train_wrapped(wrap, block_sizes) for block_sizes in [(), (2,), (4, 1)]]
        for wrap in (OverlappedDDP, FSDP)
    }


@pytest.mark.slow
def test_wrapped_models_train_alike():
    for results in run_in_processes(_wrapped_results, 2):
        for name, (expected, *checkpointed) in results.items():
            for actual in checkpointed:
                assert all(map(torch.equal, actual, expected)), name


def test_the_model_stays_the_model():
    plain, checkpointed = model_of(), checkpoint_layers(model_of(), 2)
    assert_same(checkpointed.state_dict(), plain.state_dict())
    twin = copy.deepcopy(checkpointed)
    with torch.no_grad():
        twin.layers[0].ffn.w1.weight.zero_()
    assert_same(gradients(checkpointed), gradients(plain))
    assert not torch.equal(gradients(twin)["loss"], gradients(plain)["loss"])
    assert "run_layers" not in vars(checkpoint_layers(checkpointed, ()))


def test_generation_with_a_cache_is_unchanged():
    def logits(model):
        cache = KeyValueCache(CONFIG, 2, 4, torch.device("cpu"), torch.float32)
        with torch.no_grad():
            return torch.cat([model(tokens()[:, i : i + 1], cache=cache) for i in range(4)], dim=1)

    assert torch.equal(logits(checkpoint_layers(model_of(), 2)), logits(model_of()))


@pytest.mark.parametrize("block_sizes", [(0,), (7,), (2, 2), (2, 3), (-1,)], ids=str)
def test_blocks_that_do_not_fit_are_refused(block_sizes):
    with pytest.raises(UsageError, match="do not fit 6 layers"):
        checkpoint_layers(model_of(), block_sizes)


def test_bisection_halves_down_to_single_layers():
    assert bisection(8) == (4, 2, 1)
    assert bisection(9) == (5, 3, 2, 1)
    assert bisection(1) == ()


# Saved tensors


def test_saved_tensors_of_a_graph_counted_by_hand():
    x = torch.randn(10, 4, requires_grad=True)
    weight = nn.Parameter(torch.randn(4, 6))
    holder = nn.Module()
    holder.weight = weight
    with count_saved_tensors(holder) as saved:
        hidden = x @ weight  # keeps x (160 bytes) and the weight, which is a parameter
        activated = hidden.exp()  # keeps its result (240 bytes)
        product = activated * activated[:, :1]  # keeps both factors, which share that result's memory
        total = product.square().sum()  # keeps the product (240 bytes)
        assert saved.num_bytes == 160 + 240 + 240
    total.backward()
    assert saved.num_bytes == 0
    assert saved.peak_bytes == 640


def test_without_a_model_parameters_count_too():
    weight = nn.Parameter(torch.randn(4, 6))
    with count_saved_tensors() as saved:
        result = torch.randn(10, 4, requires_grad=True) @ weight
    assert saved.num_bytes == 160 + 96
    assert saved.by_module == {"": 256}
    assert sum(saved.storages.values()) == 256
    del result
    assert saved.num_bytes == 0


def test_saved_tensors_of_the_model_are_the_accountings():
    model = model_of()
    batch = tokens()
    values = 2 * CONFIG.context_length
    with count_saved_tensors(model) as saved:
        loss = cross_entropy(model(batch[:, :-1]), batch[:, 1:])
    # Beside activations: one log-sum-exp per row of the loss, token ids and targets (each copied into one row).
    assert saved.num_bytes == 4 * values * (saved_activations(CONFIG) + 1) + 2 * 8 * values
    by_module = saved.by_module
    assert sum(by_module.values()) == saved.num_bytes
    assert by_module["layers.2.ffn.w1"] == 4 * values * CONFIG.d_model  # its input; w3 reads the same
    assert by_module["layers.2.ffn.w2"] == 4 * values * CONFIG.d_ff
    assert "layers.2.ffn.w3" not in by_module
    assert by_module["token_embeddings"] == 8 * values
    loss.backward()
    assert saved.num_bytes == 0


def test_theory_as_worked_by_hand():
    theory = ActivationBytes(num_layers=16, layer=10, layer_input=1, before=0, after=5)
    assert theory.peak(()) == 165
    assert theory.peak((4,)) == 3 * 1 + 4 * 10
    assert theory.peak((4, 2)) == 3 + 1 + 20
    assert theory.peak((16,)) == 160
    # Blocks of 5, 5, 5 and 1 layers: the third is worst, with two other checkpoints.
    assert theory.peak((5,)) == 2 + 50
    assert ActivationBytes(16, 1, 1, 0, 0).ideal_block_size == 4
    assert ActivationBytes(16, 1, 1, 0, 0).peak((4,)) == 7
    assert ActivationBytes(16, 10, 1, 0, after=100).peak((4,)) == 104


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 10))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_the_rule_of_the_square_root(num_layers, layer, layer_input):
    theory = ActivationBytes(num_layers, layer + layer_input, layer_input, 0, 0)
    k = theory.ideal_block_size
    least = (num_layers / k - 1) * layer_input + k * theory.layer
    for size in range(1, num_layers + 1):
        if num_layers % size == 0:
            assert theory.peak((size,)) == (num_layers // size - 1) * layer_input + size * theory.layer >= least - 1e-6
    pairs = [(a, b) for a in range(2, num_layers + 1) for b in range(1, a)]
    assert (theory.best_two_levels() is None) == (not pairs)
    if pairs:
        assert theory.peak(theory.best_two_levels()) == min(map(theory.peak, pairs))


@pytest.mark.parametrize("attention", ["plain", "tiled"])
def test_the_measured_peak_is_the_predicted_one(attention):
    workload = Workload(Case("test", CONFIG, 2, "forward_backward", attention=attention), torch.device("cpu"))
    theory = activation_bytes(workload)
    for block_sizes in CHOICES:
        assert measure_blocks(workload, block_sizes, 0, 1).peak_saved == theory.peak(block_sizes), block_sizes


def test_the_command_finds_the_best_block_size(tmp_path, capsys):
    flags = ["--smoke", "--device", "cpu", "--steps", "1", "--warmup", "0", "--out", str(tmp_path)]
    main([*flags, "--blocks", "none", "3", "1", "3,1"])
    out = capsys.readouterr().out
    assert "least peak memory: 1 layers per block" in out
    rows = (tmp_path / "checkpointing.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["none", "3", "1", "3 > 1"]
    peaks = [float(row.split(",")[1]) for row in rows[1:]]
    assert peaks[0] > peaks[1] > peaks[2] > peaks[3] > 0
    assert [float(row.split(",")[2]) for row in rows[1:]] == peaks
    assert (tmp_path / "checkpointing.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "results.jsonl").read_text()
    main([*flags, "--blocks", "none", "3", "--resume"])
    assert (tmp_path / "results.jsonl").read_text() == before


def test_ties_go_to_the_faster():
    choices = [Measurement((), 1, 1.0), Measurement((1,), 5, 3.0), Measurement((2,), 5, 2.0), Measurement((3,))]
    assert least_memory(choices).block_sizes == (2,)
    assert least_memory([Measurement((3,))]) is None


def test_blocks_that_cannot_be_read_are_refused(tmp_path):
    assert parse_blocks("8,2") == (8, 2)
    with pytest.raises(UsageError, match="'four'"):
        parse_blocks("four")
    with pytest.raises(UsageError, match="do not fit 9 layers"):
        main(["--smoke", "--blocks", "10", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
