"""Head and loss in one against torch's, in float64, by PyTorch and by Triton."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.fused.linear_cross_entropy import linear_cross_entropy
from cs336_systems.fused.use import language_model_loss, use_fused_pieces

from .triton_cases import DEVICE, compile_for_hopper, needs_cuda, needs_triton, triton_runner


@pytest.fixture(scope="module")
def run_triton():
    with triton_runner() as run:
        yield run


def make_inputs(tokens, d_model, vocab, dtype=torch.float32, ignored=0.0):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*tokens, d_model, generator=generator).to(dtype)
    weight = (3 * torch.randn(vocab, d_model, generator=generator) / d_model**0.5).to(dtype)
    targets = torch.randint(vocab, tokens, generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def fused(inputs, **settings):
    """Loss and gradients of three times the loss."""
    hidden, weight, targets = (x.detach().to(DEVICE) for x in inputs)
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, targets, **settings)
    (3 * loss).backward()
    return [x.detach().cpu() for x in (loss, hidden.grad, weight.grad)]


def check(results, inputs, tolerance):
    hidden, weight, targets = inputs
    logits = (hidden.double() @ weight.double().T).flatten(0, -2)
    expected = torch.nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=-100)
    gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    assert results[1].dtype == hidden.dtype
    assert results[2].dtype == weight.dtype
    for actual, right in zip(results, (expected, *gradients), strict=True):
        torch.testing.assert_close(actual.double(), right.detach().double(), rtol=tolerance, atol=tolerance)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    tokens=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    d_model=st.integers(1, 12),
    vocab=st.integers(1, 40),
    chunk_tokens=st.none() | st.integers(1, 30),
)
def test_equals_torch_for_any_shape_and_chunk(tokens, d_model, vocab, chunk_tokens):
    inputs = make_inputs(tokens, d_model, vocab)
    check(fused(inputs, chunk_tokens=chunk_tokens), inputs, tolerance=1e-5)


def test_ignored_targets_do_not_count():
    inputs = make_inputs((4, 25), 8, 31, ignored=0.4)
    assert (inputs[2] == -100).any()
    check(fused(inputs, ignore_index=-100, chunk_tokens=7), inputs, tolerance=1e-5)


def test_nothing_that_counts_gives_nan_as_torch_does():
    hidden, weight, _ = make_inputs((3,), 4, 5)
    assert linear_cross_entropy(hidden, weight, torch.full((3,), -100), -100).isnan()


def test_float64_is_computed_as_such():
    inputs = make_inputs((50,), 8, 70, torch.float64)
    check(fused(inputs, chunk_tokens=13), inputs, tolerance=1e-12)


def test_large_logits_stay_finite():
    hidden, weight, targets = make_inputs((6,), 4, 9)
    inputs = (1e4 * hidden.detach()).requires_grad_(), weight, targets
    loss, *gradients = fused(inputs)
    assert loss.isfinite()
    assert all(x.isfinite().all() for x in gradients)


def test_bf16_products_are_summed_in_fp32():
    # Each chunk of one token adds 2⁻⁹ of the sum so far or less, which bf16 alone would lose.
    inputs = make_inputs((512,), 8, 6, torch.bfloat16)
    check(fused(inputs, chunk_tokens=1), inputs, tolerance=2e-2)
    torch.testing.assert_close(
        fused(inputs, chunk_tokens=1)[2], fused(inputs, chunk_tokens=512)[2], rtol=2e-2, atol=1e-4
    )


def test_autocast_multiplies_in_its_type_and_returns_the_inputs_types():
    hidden, weight, targets = inputs = make_inputs((30,), 16, 50)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward()
    exact = fused(inputs)
    assert loss.dtype == torch.float32
    assert not torch.equal(loss.detach(), exact[0])
    for actual, right in zip((loss.detach(), 3 * hidden.grad, 3 * weight.grad), exact, strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, right, rtol=3e-2, atol=3e-3)


def test_without_gradients_none_are_made(monkeypatch):
    hidden, weight, targets = make_inputs((30,), 16, 50)
    made = []
    monkeypatch.setattr(torch, "zeros_like", lambda *args, **kw: made.append(args))
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets)
    assert not made
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    torch.testing.assert_close(loss, expected.detach())


def test_only_the_needed_gradients_are_made():
    hidden, weight, targets = make_inputs((9,), 4, 6)
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    linear_cross_entropy(hidden.detach(), weight, targets).backward()
    logits_loss = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    for actual, right in zip(
        (hidden.grad, weight.grad), torch.autograd.grad(logits_loss, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(actual, right)


def test_a_second_backward_pass_is_refused():
    hidden, weight, targets = make_inputs((9,), 4, 6)
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_matrix_of_all_logits_is_made(monkeypatch):
    largest = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: [result := product(a, b), largest.append(result.numel())][0]
    )
    fused(make_inputs((64,), 8, 1000), chunk_tokens=4)
    assert max(largest) == 4 * 1000  # all logits would be 64 times 1,000


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3, 4), (5, 4), (2, 4)), r"targets \(2, 4\)"),
        (((2, 3, 4), (4, 5), (2, 3)), r"a weight \(4, 5\)"),
        (((0, 4), (5, 4), (0,)), r"at least one target"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
    hidden, weight = torch.zeros(shapes[0]), torch.zeros(shapes[1])
    with pytest.raises(UsageError, match=message):
        linear_cross_entropy(hidden, weight, torch.zeros(shapes[2], dtype=torch.long))


def test_a_chunk_of_nothing_is_refused():
    hidden, weight, targets = make_inputs((9,), 4, 6)
    with pytest.raises(UsageError, match="chunk_tokens is 0"):
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=0)


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_trains_with_all_pieces(tied):
    def make_model():
        torch.manual_seed(0)
        return BasicsTransformerLM(40, 16, 32, 2, 4, tie_embeddings=tied, qk_norm=True)

    tokens = torch.randint(40, (3, 17), generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    plain, ours = make_model(), use_fused_pieces(make_model())
    expected = cross_entropy(plain(inputs), targets)
    loss = language_model_loss(ours, inputs, targets)
    torch.testing.assert_close(loss, expected)
    expected.backward()
    loss.backward()
    theirs = dict(plain.named_parameters())
    assert list(theirs) == [name for name, _ in ours.named_parameters()]
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_triton_equals_torch(run_triton, ignored):
    inputs = make_inputs((3, 7), 8, 100, ignored=ignored)
    detached = [x.detach() for x in inputs]
    check(run_triton(fused_with_small_blocks, detached, -100 if ignored else None), inputs, tolerance=1e-5)


def fused_with_small_blocks(inputs, ignore_index):
    """As `fused`, with several blocks of columns for each row."""
    from cs336_systems.fused import cross_entropy_kernel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy_kernel, "LARGEST_BLOCK", 32)
        return fused(inputs, ignore_index=ignore_index, chunk_tokens=5)


def losses_by_triton(logits, targets):
    from cs336_systems.fused.cross_entropy_kernel import triton_cross_entropy_

    return triton_cross_entropy_(logits.to(DEVICE), targets.to(DEVICE), None, False).cpu()


def test_triton_gives_nan_for_a_target_that_is_no_column(run_triton):
    losses = run_triton(losses_by_triton, torch.randn(3, 10), torch.tensor([3, 10, -1]))
    assert losses.isnan().tolist() == [False, True, True]


@needs_triton
def test_the_kernel_compiles(monkeypatch, tmp_path):
    from cs336_systems.fused.cross_entropy_kernel import _cross_entropy_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types = {"Logits": "*bf16", "Targets": "*i64", "Losses": "*fp32", "stride": "i32", "vocab": "i32"}
    constants = {"HAS_IGNORE": True, "WRITE_GRADIENT": True, "BLOCK": 8192}
    compile_for_hopper(_cross_entropy_kernel, types | {"ignore_index": "i32"}, constants, num_warps=8)


@needs_cuda
def test_bf16_on_a_gpu():
    inputs = make_inputs((4, 200), 64, 5000, torch.bfloat16)
    check(fused(inputs, chunk_tokens=300), inputs, tolerance=3e-2)
