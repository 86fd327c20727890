"""Attention against torch's scaled_dot_product_attention and nn.MultiheadAttention-style head-by-head computation."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.model import (
    CausalMultiHeadSelfAttention,
    RotaryEmbedding,
    TransformerConfig,
    scaled_dot_product_attention,
)
from cs336_basics.model.attention import attention
from cs336_basics.model.functional import causal_mask
from cs336_basics.model.kv_cache import KeyValueCache
from cs336_basics.model.tiled_attention import tiled_attention


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_torchs(leading, masked):
    q, k, v = torch.randn(*leading, 5, 8), torch.randn(*leading, 7, 8), torch.randn(*leading, 7, 6)
    mask = torch.rand(*leading, 5, 7) > 0.4 if masked else None
    if masked:
        mask[..., 0] = True  # torch gives NaN or zeros to a row without keys, by version
    torch.testing.assert_close(
        scaled_dot_product_attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    )


def test_a_mask_broadcasts_over_leading_dimensions():
    q, k, v = torch.randn(3, 2, 4, 5, 8).unbind(0)
    mask = causal_mask(5, 5)
    torch.testing.assert_close(
        scaled_dot_product_attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, is_causal=True)
    )


def test_a_query_without_any_key_gets_zeros_and_a_finite_gradient():
    q, k, v = torch.randn(3, 2, 4, 8, requires_grad=True).unbind(0)
    mask = torch.tensor([[True, False, True, False]] * 3 + [[False] * 4])
    out = scaled_dot_product_attention(q, k, v, mask)
    assert torch.equal(out[:, 3], torch.zeros(2, 8))
    gradient_q, gradient_k = torch.autograd.grad(out.square().sum(), (q, k))
    assert torch.isfinite(gradient_q).all()
    assert torch.isfinite(gradient_k).all()
    assert not gradient_q[:, 3].any()
    assert gradient_q[:, :3].abs().sum() > 0


def test_huge_scores_stay_finite():
    q = torch.full((4, 8), 1e4)
    out = scaled_dot_product_attention(q, q, torch.randn(4, 8), causal_mask(4, 4))
    assert torch.isfinite(out).all()
    assert torch.isfinite(tiled_attention(*[q.unsqueeze(0)] * 3, True)).all()


def test_attention_of_half_precision_is_close_to_that_of_single():
    q, k, v = torch.randn(3, 2, 9, 16).bfloat16().unbind(0)
    exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    for out in (scaled_dot_product_attention(q, k, v, causal_mask(9, 9)), tiled_attention(q, k, v, True)):
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), exact, rtol=0.02, atol=0.03)


# ---- tiles ----------------------------------------------------------------------------------------------------------


@given(
    queries=st.integers(1, 150),
    extra_keys=st.integers(0, 70),
    is_causal=st.booleans(),
    leading=st.sampled_from([(), (2,), (2, 2)]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_tiles_give_torchs_values_and_gradients(queries, extra_keys, is_causal, leading, seed):
    torch.manual_seed(seed)
    keys = queries + extra_keys
    q = torch.randn(*leading, 2, queries, 4, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(*leading, 2, keys, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(extra_keys) if is_causal else None
    ours, expected = tiled_attention(q, k, v, is_causal), F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn_like(expected)
    gradients = (torch.autograd.grad(out, (q, k, v), upstream) for out in (ours, expected))
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_tiled_backward_pass_equals_numerical_differentiation(is_causal, monkeypatch):
    monkeypatch.setattr("cs336_basics.model.tiled_attention.QUERIES_PER_TILE", 2)
    q, k, v = (torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda q, k, v: tiled_attention(q, k, v, is_causal), (q, k, v))


def test_tiles_keep_no_matrix_of_queries_by_keys():
    kept = []
    q, k, v = torch.randn(3, 1, 2, 200, 4, requires_grad=True).unbind(0)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        tiled_attention(q, k, v, True)
    assert sorted(kept) == [(1, 2, 200)] + [(1, 2, 200, 4)] * 4


def test_the_default_attention_is_causal_or_not_as_asked():
    q, k, v = torch.randn(3, 2, 2, 6, 4).unbind(0)
    for is_causal in (True, False):
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        torch.testing.assert_close(attention(q, k, v, is_causal), expected)


# ---- multi-head attention -------------------------------------------------------------------------------------------


def head_by_head(module: CausalMultiHeadSelfAttention, x: Tensor, rope: RotaryEmbedding | None) -> Tensor:
    """Each head on its own from the leading rows of the projections, and each query on its own from its own prefix."""
    d = x.shape[-1] // module.num_heads
    heads = []
    for head in range(module.num_heads):
        rows = slice(head * d, (head + 1) * d)
        q, k, v = (x @ p.weight[rows].T for p in (module.q_proj, module.k_proj, module.v_proj))
        if module.q_norm is not None:
            q, k = F.rms_norm(q, (d,), module.q_norm.weight, 1e-5), F.rms_norm(k, (d,), module.k_norm.weight, 1e-5)
        if rope is not None:
            q, k = rope(q), rope(k)
        outputs = []
        for t in range(x.shape[-2]):
            scores = (k[..., : t + 1, :] * q[..., t : t + 1, :]).sum(-1) / math.sqrt(d)
            outputs.append((scores.softmax(-1).unsqueeze(-1) * v[..., : t + 1, :]).sum(-2))
        heads.append(torch.stack(outputs, dim=-2))
    return torch.cat(heads, dim=-1) @ module.output_proj.weight.T


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
@pytest.mark.parametrize("with_rope", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_multi_head_attention_is_its_heads_side_by_side(leading, with_rope, qk_norm):
    rope = RotaryEmbedding(12, 4) if with_rope else None
    module = CausalMultiHeadSelfAttention(12, 3, rope, qk_norm=qk_norm)
    if qk_norm:
        torch.nn.init.uniform_(module.q_norm.weight, 0.5, 2)
        torch.nn.init.uniform_(module.k_norm.weight, 0.5, 2)
    x = torch.randn(*leading, 9, 12)
    torch.testing.assert_close(module(x), head_by_head(module, x, rope), rtol=1e-4, atol=1e-5)


def test_positions_are_per_sequence():
    module = CausalMultiHeadSelfAttention(8, 2, RotaryEmbedding(50, 4))
    x = torch.randn(2, 6, 8)
    shifted = torch.stack((torch.arange(6), torch.arange(6) + 40))
    # Attention sees only differences of positions, so shifting a whole sequence changes nothing...
    torch.testing.assert_close(module(x, shifted), module(x), rtol=1e-4, atol=1e-5)
    # ... and stretching it does.
    assert not torch.allclose(module(x, 3 * torch.arange(6)), module(x), atol=1e-3)


def test_the_attention_function_is_replaceable():
    seen = []

    def through_torch(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        seen.append((q.shape, is_causal))
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)

    module = CausalMultiHeadSelfAttention(8, 2, RotaryEmbedding(50, 4), attention_fn=through_torch)
    x = torch.randn(3, 6, 8)
    out = module(x)
    assert seen == [((3, 2, 6, 4), True)]
    module.attention_fn = attention
    torch.testing.assert_close(module(x), out)


def test_a_cache_gives_the_outputs_of_the_whole_sequence():
    module = CausalMultiHeadSelfAttention(8, 2, RotaryEmbedding(50, 4))
    config = TransformerConfig(d_model=8, num_heads=2, num_layers=1)
    cache = KeyValueCache(config, 3, 10, torch.device("cpu"), torch.float32).layers[0]
    x = torch.randn(3, 10, 8)
    with torch.no_grad():
        steps = (slice(0, 4), slice(4, 5), slice(5, 9), slice(9, 10))  # whole prompt, one, several, one
        pieces = [module(x[:, step], torch.arange(10)[step], cache=cache) for step in steps]
        torch.testing.assert_close(torch.cat(pieces, dim=1), module(x), rtol=1e-4, atol=1e-6)
        with pytest.raises(UsageError, match="11 tokens do not fit a key-value cache made for 10"):
            module(x[:, :1], torch.tensor([10]), cache=cache)


def test_heads_must_divide_the_width():
    with pytest.raises(UsageError, match="d_model 8 is not a multiple of num_heads 3"):
        CausalMultiHeadSelfAttention(8, 3)
