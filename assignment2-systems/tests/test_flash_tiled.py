"""Tiled flash attention against attention written out in float64, and what it keeps for its backward pass."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM
from cs336_systems.flash_attention import (
    TiledFlashAttention,
    compiled_backward,
    flash_attention,
    functions,
    tiled,
)


def reference(q, k, v, is_causal):
    """Output and log-sum-exp of the definition, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if is_causal:
        hidden = torch.arange(q.shape[-2])[:, None] < torch.arange(k.shape[-2])
        scores = scores.masked_fill(hidden, -torch.inf)
    return torch.softmax(scores, dim=-1) @ v, torch.logsumexp(scores, dim=-1)


def make_inputs(leading, queries, keys, d, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(*leading, queries, d), (*leading, keys, d), (*leading, keys, d), (*leading, queries, d)]
    q, k, v, grad = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return *(x.requires_grad_() for x in (q, k, v)), grad


def check_against_reference(q, k, v, grad, is_causal, tolerance):
    expected_out, expected_lse = reference(q, k, v, is_causal)
    expected = [expected_out, *torch.autograd.grad(expected_out, (q, k, v), grad.double())]
    out = TiledFlashAttention.apply(q, k, v, is_causal)
    (lse,) = [x for x in out.grad_fn.saved_tensors if x.shape == q.shape[:-1]]
    actual = [out, *torch.autograd.grad(out, (q, k, v), grad)]
    for value, right, name in zip(actual, expected, ("O", "dQ", "dK", "dV"), strict=True):
        assert value.dtype == q.dtype
        torch.testing.assert_close(value.double(), right.double(), rtol=tolerance, atol=tolerance, msg=name.__add__)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("leading", "queries", "keys", "d"),
    [
        ((4,), 128, 128, 64),
        ((2, 3), 200, 200, 40),  # lengths that no tile divides
        ((2, 1, 3), 65, 65, 16),
        ((), 1, 1, 8),
        ((2,), 70, 1100, 16),  # more keys than queries, several tiles of keys
        ((2,), 1100, 70, 16),  # more queries than keys
    ],
)
def test_equals_the_definition(leading, queries, keys, d, is_causal):
    check_against_reference(*make_inputs(leading, queries, keys, d), is_causal, tolerance=2e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    leading=st.lists(st.integers(1, 3), max_size=3),
    queries=st.integers(1, 40),
    keys=st.integers(1, 40),
    d=st.integers(1, 20),
    query_tile=st.integers(1, 16),
    key_tile=st.integers(1, 16),
    is_causal=st.booleans(),
)
def test_equals_the_definition_for_any_shape_and_tile(leading, queries, keys, d, query_tile, key_tile, is_causal):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "QUERY_TILE", query_tile)
        patch.setattr(tiled, "KEY_TILE", key_tile)
        check_against_reference(*make_inputs(leading, queries, keys, d), is_causal, tolerance=2e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_is_rounded_once(dtype, tolerance):
    check_against_reference(*make_inputs((2, 2), 90, 90, 32, dtype), True, tolerance)


@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_by_finite_differences(is_causal, monkeypatch):
    monkeypatch.setattr(tiled, "QUERY_TILE", 4)
    monkeypatch.setattr(tiled, "KEY_TILE", 3)
    q, k, v, _ = make_inputs((2,), 7, 5, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda *qkv: TiledFlashAttention.apply(*qkv, is_causal), (q, k, v))


def test_is_causal_may_be_left_out():
    q, k, v, grad = make_inputs((2,), 9, 9, 4)
    out = TiledFlashAttention.apply(q, k, v)
    out.backward(grad)
    torch.testing.assert_close(out, TiledFlashAttention.apply(q, k, v, False), rtol=0, atol=0)
    assert q.grad is not None


def test_large_scores_stay_finite():
    q, k, v, grad = make_inputs((1,), 80, 80, 16)
    q, k = (100 * q.detach()).requires_grad_(), (100 * k.detach()).requires_grad_()
    check_against_reference(q, k, v, grad, True, tolerance=2e-2)


def test_no_matrix_of_scores_is_kept():
    q, k, v, _ = make_inputs((4,), 128, 128, 64)
    saved = TiledFlashAttention.apply(q, k, v, True).grad_fn.saved_tensors
    assert sorted(x.shape for x in saved) == sorted([(4, 128)] + 4 * [(4, 128, 64)])


def test_no_keys_give_zero_and_no_gradient():
    q, k, v, grad = make_inputs((2,), 3, 0, 4)
    out = TiledFlashAttention.apply(q, k, v, True)
    (lse,) = [x for x in out.grad_fn.saved_tensors if x.ndim == 2]
    out.backward(grad)
    assert not out.any()
    assert not q.grad.any()
    assert (lse == -torch.inf).all()


def test_heads_are_merged_without_a_copy():
    q, k, v, _ = make_inputs((2, 3), 5, 5, 4)
    out = TiledFlashAttention.apply(q, k, v, True)
    assert out.transpose(1, 2).is_contiguous()
    assert TiledFlashAttention.apply(q[0], k[0], v[0], True).is_contiguous()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4, 8), (2, 4, 8), (2, 5, 8)), r"V \(2, 5, 8\)"),
        (((2, 4, 8), (2, 4, 9), (2, 4, 9)), r"K \(2, 4, 9\)"),
        (((2, 4, 8), (3, 4, 8), (3, 4, 8)), r"Q \(2, 4, 8\), K \(3, 4, 8\)"),
        (((8,), (8,), (8,)), r"allowed are \(..., queries, d\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(UsageError, match=message):
        flash_attention(*(torch.zeros(shape) for shape in shapes))


def test_types_that_do_not_fit_are_refused():
    q = torch.zeros(2, 4, 8)
    with pytest.raises(UsageError, match=r"float16"):
        TiledFlashAttention.apply(q, q.half(), q)
    with pytest.raises(UsageError, match=r"floating-point"):
        TiledFlashAttention.apply(q.long(), q.long(), q.long())


def small_model(attention_fn):
    torch.manual_seed(0)
    return BasicsTransformerLM(
        vocab_size=50, context_length=32, d_model=32, num_layers=2, num_heads=4, attention_fn=attention_fn
    )


def test_a_model_takes_it():
    tokens = torch.randint(50, (2, 32), generator=torch.Generator().manual_seed(1))
    theirs, ours = small_model(None), small_model(flash_attention)
    results = []
    for model in (theirs, ours):
        logits = model(tokens)
        logits.square().mean().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_under_autocast_it_computes_in_the_autocast_type():
    q, k, v, grad = make_inputs((2, 2), 30, 30, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = flash_attention(q, k, v, True)
    assert out.dtype == torch.bfloat16
    halves = [x.bfloat16() for x in (q, k, v)]
    torch.testing.assert_close(out, TiledFlashAttention.apply(*halves, True), rtol=0, atol=0)
    out.backward(grad.bfloat16())
    assert q.grad.dtype == torch.float32


def check_backward(backward, is_causal):
    q, k, v, grad = make_inputs((2, 2), 23, 31, 16)
    expected = torch.autograd.grad(reference(q, k, v, is_causal)[0], (q, k, v), grad.double())
    actual = torch.autograd.grad(flash_attention(q, k, v, is_causal, backward), (q, k, v), grad)
    for value, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, right, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_equations_give_the_gradients(is_causal, monkeypatch):
    monkeypatch.setitem(functions._BACKWARD_PASSES, "compiled", compiled_backward.recomputed_gradients)
    check_backward("compiled", is_causal)


@pytest.mark.slow
def test_the_compiled_equations_give_the_gradients():
    check_backward("compiled", is_causal=True)


def test_an_unknown_backward_is_refused():
    q, k, v, _ = make_inputs((2,), 3, 3, 4)
    with pytest.raises(UsageError, match="backward is 'cuda'; allowed are triton, compiled, pytorch"):
        flash_attention(q, k, v, True, backward="cuda")


@pytest.mark.parametrize("leading", [(2,), (2, 3), (1, 2, 2)])
def test_the_operators_tell_the_compiler_what_they_return(leading):
    q, k, v, grad = (x.detach() for x in make_inputs(leading, 9, 7, 4))
    out, lse = tiled.tiled_forward(q, k, v, True)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(tiled.tiled_forward, (q, k, v, True), test_utils=checks)
    torch.library.opcheck(tiled.tiled_backward, (grad, q, k, v, out, lse, True), test_utils=checks)


@pytest.mark.slow
def test_torch_compile_takes_it_without_a_graph_break():
    q, k, v, grad = make_inputs((2, 2), 70, 70, 16)
    compiled = torch.compile(lambda q, k, v: 2 * flash_attention(q, k, v, True), fullgraph=True)
    out, expected = compiled(q, k, v), 2 * flash_attention(q, k, v, True)
    torch.testing.assert_close(out, expected)
    for actual, right in zip(
        torch.autograd.grad(out, (q, k, v), grad), torch.autograd.grad(expected, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(actual, right)
