"""Each layer against torch's own, and each hand-written backward pass against numerical differentiation."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.model import Embedding, Linear, RMSNorm, RotaryEmbedding, SwiGLU, TransformerConfig
from cs336_basics.model.config import default_d_ff
from cs336_basics.model.functional import rms_norm, rotate_pairs, silu, softmax, swiglu_gate
from cs336_basics.model.fused import fused_rms_norm, fused_swiglu_gate
from cs336_basics.model.modules import SiLUFeedForward

LEADING = [(), (3,), (2, 3), (2, 1, 3, 2)]


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


# ---- linear, embedding, feed-forward --------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", LEADING)
def test_linear_is_torchs(leading):
    layer, x = Linear(5, 7), torch.randn(*leading, 5)
    assert layer.weight.shape == (7, 5)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight))


@pytest.mark.parametrize("leading", LEADING)
def test_embedding_is_torchs_and_so_is_its_gradient(leading):
    layer, token_ids = Embedding(11, 4), torch.randint(11, leading)
    out, expected = layer(token_ids), F.embedding(token_ids, layer.weight)
    assert torch.equal(out, expected)
    upstream = torch.randn_like(out)
    torch.testing.assert_close(*(torch.autograd.grad(y, layer.weight, upstream)[0] for y in (out, expected)))


def test_an_unknown_token_id_is_an_error():
    for token_id in (11, -1):
        with pytest.raises(IndexError):
            Embedding(11, 4)(torch.tensor([token_id]))


@pytest.mark.parametrize("leading", LEADING)
def test_feed_forward_networks_are_their_formulas(leading):
    x = torch.randn(*leading, 6)
    gated, plain = SwiGLU(6, 10), SiLUFeedForward(6, 10)
    hidden = F.silu(F.linear(x, gated.w1.weight)) * F.linear(x, gated.w3.weight)
    torch.testing.assert_close(gated(x), F.linear(hidden, gated.w2.weight))
    torch.testing.assert_close(plain(x), F.linear(F.silu(F.linear(x, plain.w1.weight)), plain.w2.weight))


def test_positional_constructors_take_device_and_dtype():
    for layer in (Linear(3, 4, "meta", torch.bfloat16), Embedding(3, 4, "meta", torch.bfloat16)):
        assert layer.weight.device.type == "meta"
        assert layer.weight.dtype == torch.bfloat16
    assert RMSNorm(4, 1e-6, "meta", torch.bfloat16).weight.dtype == torch.bfloat16
    assert [name for name, _ in SwiGLU(4, 8).named_parameters()] == ["w1.weight", "w2.weight", "w3.weight"]


@pytest.mark.parametrize(
    ("weight", "std"),
    [
        (Linear(300, 500).weight, math.sqrt(2 / 800)),
        (Embedding(800, 500).weight, 1.0),
        (Linear(500, 9).weight, math.sqrt(2 / 509)),
    ],
)
def test_initial_weights_are_normal_and_cut_at_three_deviations(weight, std):
    scaled = weight.detach().flatten() / std
    # A normal distribution cut at ±3 has variance 1 - 6 φ(3) / (2 Φ(3) - 1) = 0.9733.
    assert scaled.abs().max() <= 3
    tolerance = 4 / math.sqrt(len(scaled))
    assert abs(scaled.mean()) < tolerance
    assert scaled.var() == pytest.approx(0.9733, abs=2 * tolerance)
    assert (scaled.abs() > 2).float().mean() == pytest.approx(0.0429, abs=tolerance)


# ---- silu, softmax --------------------------------------------------------------------------------------------------


def test_silu_is_torchs():
    x = torch.linspace(-200, 200, 1001)
    torch.testing.assert_close(silu(x), F.silu(x))


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    shift=st.floats(-1000, 1000, width=32),
)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_softmax_is_a_distribution_for_any_finite_input(values, shift):
    x = torch.tensor(values)
    out = softmax(x, dim=0)
    assert torch.isfinite(out).all()
    assert out.sum() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(out, F.softmax(x, dim=0), rtol=1e-4, atol=1e-6)
    exact = torch.tensor(values, dtype=torch.float64).clamp(-50, 50)
    torch.testing.assert_close(softmax(exact + shift, dim=0), softmax(exact, dim=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_softmax_over_any_dimension(dim):
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(softmax(x, dim), F.softmax(x, dim))


def test_softmax_gives_masked_entries_nothing():
    x = torch.tensor([1.0, -math.inf, 3.0])
    torch.testing.assert_close(softmax(x, 0), F.softmax(x, 0))
    assert softmax(x, 0)[1] == 0


# ---- RMSNorm and the SwiGLU gate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("grad", [True, False])
def test_rms_norm_is_torchs(leading, grad):
    layer, x = RMSNorm(6, eps=1e-3), torch.randn(*leading, 6)
    torch.nn.init.normal_(layer.weight)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(layer(x), F.rms_norm(x, (6,), layer.weight, eps=1e-3))


def test_rms_norm_counts_in_float32_and_answers_in_the_inputs_type():
    layer = RMSNorm(64)
    large = torch.full((2, 64), 400.0, dtype=torch.float16)  # its square overflows in half precision
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            out = layer(large)
            assert out.dtype == torch.float16
            torch.testing.assert_close(out, torch.ones_like(out))
    x = torch.randn(5, 64, dtype=torch.bfloat16)
    torch.testing.assert_close(layer(x), F.rms_norm(x.float(), (64,), eps=1e-5).bfloat16())


@pytest.mark.parametrize("leading", LEADING)
def test_hand_written_backward_passes_equal_numerical_differentiation(leading):
    x, gate, up = (torch.randn(*leading, 5, dtype=torch.float64, requires_grad=True) for _ in range(3))
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: fused_rms_norm(x, weight, 1e-2), (x, weight))
    assert torch.autograd.gradcheck(fused_swiglu_gate, (gate, up))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_and_plain_forms_agree_in_value_and_gradient(dtype):
    x, gate, up = (torch.randn(4, 3, 32, dtype=dtype, requires_grad=True) for _ in range(3))
    weight = torch.randn(32, dtype=dtype, requires_grad=True)
    for fused, plain, inputs in (
        (fused_rms_norm(x, weight, 1e-5), rms_norm(x, weight, 1e-5), (x, weight)),
        (fused_swiglu_gate(gate, up), swiglu_gate(gate, up), (gate, up)),
    ):
        assert fused.dtype == dtype
        upstream = torch.randn_like(fused)
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.1}
        torch.testing.assert_close(fused, plain, **tolerance)
        for left, right in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (fused, plain)), strict=True):
            assert left.dtype == dtype
            torch.testing.assert_close(left, right, **tolerance)


def saved_elements(compute) -> int:
    """Elements that autograd keeps for the backward pass, each storage once."""
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = compute()
    assert out.requires_grad
    return sum(storages.values())


def test_fused_forms_keep_less_than_the_plain_ones():
    x, gate, up = (torch.randn(10, 32, requires_grad=True) for _ in range(3))
    weight = torch.randn(32, requires_grad=True)
    assert saved_elements(lambda: fused_rms_norm(x, weight, 1e-5)) == 10 * 32 + 32 + 10
    assert saved_elements(lambda: rms_norm(x, weight, 1e-5)) > 2 * 10 * 32
    assert saved_elements(lambda: fused_swiglu_gate(gate, up)) == 2 * 10 * 32
    assert saved_elements(lambda: swiglu_gate(gate, up)) == 4 * 10 * 32


# ---- rotary embeddings ----------------------------------------------------------------------------------------------


def rotated_by_complex_numbers(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Each pair as a complex number, times e^(i · position · theta^(-2k/d))."""
    d = x.shape[-1]
    frequencies = torch.tensor([theta ** (-2 * k / d) for k in range(d // 2)], dtype=torch.float64)
    numbers = torch.complex(x[..., 0::2].double(), x[..., 1::2].double())
    numbers = numbers * torch.exp(1j * positions.double().unsqueeze(-1) * frequencies)
    return torch.stack((numbers.real, numbers.imag), dim=-1).flatten(-2)


@pytest.mark.parametrize("leading", LEADING)
def test_rope_is_a_complex_rotation(leading):
    rope = RotaryEmbedding(50, 8, 1000.0)
    x = torch.randn(*leading, 20, 8)
    places = torch.arange(20)
    torch.testing.assert_close(rope(x).double(), rotated_by_complex_numbers(x, places, 1000.0), rtol=1e-5, atol=1e-5)
    assert torch.equal(rope(x, places), rope(x))
    anywhere = torch.randint(50, (*leading, 20))
    expected = rotated_by_complex_numbers(x, anywhere, 1000.0)
    torch.testing.assert_close(rope(x, anywhere).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_pairwise_form_is_the_complex_one():
    rope, x = RotaryEmbedding(9, 6), torch.randn(2, 9, 6)
    torch.testing.assert_close(rotate_pairs(x, *rope.cos_sin.unbind(-1)), rope(x))


@given(offset=st.integers(0, 900), distance=st.integers(0, 99), seed=st.integers(0, 100))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_rotated_products_depend_on_the_distance_alone(offset, distance, seed):
    rope = RotaryEmbedding(1000, 16)
    q, k = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(seed)).double()

    def product(position: int) -> float:
        return float((rope(q, torch.tensor([position + distance])) * rope(k, torch.tensor([position]))).sum())

    assert product(offset) == pytest.approx(product(0), abs=1e-5)


def test_rope_gradients_and_types():
    rope = RotaryEmbedding(6, 4)
    x = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rope, (x,))
    half = torch.randn(6, 4).bfloat16()
    assert rope(half).dtype == torch.bfloat16
    torch.testing.assert_close(rope(half), rope(half.float()).bfloat16())


def test_rope_tables_survive_casts_and_moves_and_stay_out_of_the_state_dict():
    rope = RotaryEmbedding(20, 8)
    table = rope.cos_sin.clone()
    assert rope.state_dict() == {}
    assert list(rope.parameters()) == []
    assert torch.equal(rope.bfloat16().cos_sin, table)
    assert torch.equal(rope.double().cos_sin, table)
    made_elsewhere = RotaryEmbedding(20, 8, device="meta")
    x = torch.randn(20, 8)
    assert torch.equal(made_elsewhere(x), rope(x))
    assert torch.equal(RotaryEmbedding(20, 8, device="meta").to_empty(device="cpu").cos_sin, table)


def test_positions_outside_the_context_are_refused():
    rope = RotaryEmbedding(10, 4)
    with pytest.raises(UsageError, match="11 tokens do not fit the context length of 10"):
        rope(torch.randn(11, 4))
    with pytest.raises(UsageError, match="run from 3 to 10; allowed are 0 to 9"):
        rope(torch.randn(2, 4), torch.tensor([3, 10]))
    with pytest.raises(UsageError, match="run from -1 to 0"):
        rope(torch.randn(2, 4), torch.tensor([-1, 0]))
    with pytest.raises(UsageError, match="dim must be even; got 5"):
        RotaryEmbedding(10, 5)


# ---- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d_model", "swiglu", "silu_width"),
    [(512, 1344, 2016), (768, 2048, 3072), (1024, 2752, 4128), (1280, 3392, 5088), (1600, 4288, 6432), (16, 64, 96)],
)
def test_default_feed_forward_width(d_model, swiglu, silu_width):
    assert default_d_ff(d_model) == TransformerConfig(d_model=d_model, num_heads=2).d_ff == swiglu
    assert TransformerConfig(d_model=d_model, num_heads=2, ffn="silu").d_ff == silu_width
    assert 3 * swiglu == 2 * silu_width  # matrices times width: the same parameters


def test_configuration_round_trip():
    config = TransformerConfig(300, 16, 32, 2, 4, norm="post", position="none", ffn="silu", qk_norm=True)
    assert TransformerConfig.from_dict(config.to_dict()) == config
    assert TransformerConfig.from_dict({}) == TransformerConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "layer"}, "norm is 'layer'; allowed are pre, post, none"),
        ({"position": "learned"}, "position is 'learned'"),
        ({"ffn": "gelu"}, "ffn is 'gelu'"),
        ({"num_heads": 3}, "d_model 512 is not a multiple of num_heads 3"),
        ({"d_model": 12, "num_heads": 4}, "d_model / num_heads is 3"),
        ({"d_model": 0}, "d_model is 0; allowed is any whole number above 0"),
        ({"d_ff": -64}, "d_ff is -64"),
        ({"num_layers": 2.5}, "num_layers is 2.5"),
        ({"rope_theta": math.inf}, "rope_theta is inf"),
        ({"depth": 3}, r"unknown settings \['depth'\]"),
    ],
)
def test_impossible_configurations_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        TransformerConfig.from_dict(settings)
