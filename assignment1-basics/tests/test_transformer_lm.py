"""The whole model against a second implementation in torch's own functions, and what must hold of any of its kind."""

import copy
import math
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from cs336_basics.command_line import UsageError
from cs336_basics.hf_llama import export_llama
from cs336_basics.model import BasicsTransformerLM, TransformerBlock, TransformerConfig, transformer_lm
from cs336_basics.model.kv_cache import KeyValueCache

SMALL = TransformerConfig(vocab_size=50, context_length=20, d_model=24, num_layers=2, num_heads=3, d_ff=40)
ABLATIONS = [
    {},
    {"norm": "post"},
    {"norm": "none"},
    {"position": "none"},
    {"ffn": "silu"},
    {"tie_embeddings": True},
    {"qk_norm": True},
    {"norm": "post", "position": "none", "ffn": "silu", "tie_embeddings": True, "qk_norm": True},
]
each_ablation = pytest.mark.parametrize(
    "changes", ABLATIONS, ids=lambda changes: "-".join(map(str, changes)) or "standard"
)


def make(changes: dict | None = None, **arguments) -> BasicsTransformerLM:
    """A small model whose gains are not all one."""
    torch.manual_seed(0)
    model = BasicsTransformerLM.from_config(replace(SMALL, **(changes or {})), **arguments)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            elif name == "token_embeddings.weight":
                parameter.normal_()
    return model


def some_tokens(batch_size: int = 2, length: int = 20) -> Tensor:
    return torch.randint(50, (batch_size, length), generator=torch.Generator().manual_seed(1))


def reference_logits(weights: dict[str, Tensor], config: TransformerConfig, token_ids: Tensor) -> Tensor:
    """The same model from the names of its weights, with torch's functions and rotation by complex numbers."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weights[f"{name}.weight"], config.norm_eps)

    def rotate(x: Tensor) -> Tensor:
        if config.position == "none":
            return x
        d, length = x.shape[-1], x.shape[-2]
        frequencies = config.rope_theta ** (-torch.arange(0, d, 2) / d)
        angles = torch.outer(torch.arange(length), frequencies)
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.exp(1j * angles)).flatten(-2)

    def attention(x: Tensor, name: str) -> Tensor:
        q, k, v = (
            F.linear(x, weights[f"{name}.{part}_proj.weight"]).unflatten(-1, (config.num_heads, -1)).transpose(1, 2)
            for part in "qkv"
        )
        if config.qk_norm:
            q, k = norm(q, f"{name}.q_norm"), norm(k, f"{name}.k_norm")
        out = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        return F.linear(out.transpose(1, 2).flatten(-2), weights[f"{name}.output_proj.weight"])

    def feed_forward(x: Tensor, name: str) -> Tensor:
        hidden = F.silu(F.linear(x, weights[f"{name}.w1.weight"]))
        if config.ffn == "swiglu":
            hidden = hidden * F.linear(x, weights[f"{name}.w3.weight"])
        return F.linear(hidden, weights[f"{name}.w2.weight"])

    x = F.embedding(token_ids, weights["token_embeddings.weight"])
    for layer in range(config.num_layers):
        for sub_layer, function, norm_name in (("attn", attention, "ln1"), ("ffn", feed_forward, "ln2")):
            name, norm_name = f"layers.{layer}.{sub_layer}", f"layers.{layer}.{norm_name}"
            if config.norm == "pre":
                x = x + function(norm(x, norm_name), name)
            elif config.norm == "post":
                x = norm(x + function(x, name), norm_name)
            else:
                x = x + function(x, name)
    if config.norm == "pre":
        x = norm(x, "ln_final")
    return F.linear(x, weights["lm_head.weight"])


def loss_of(model: BasicsTransformerLM, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


# ---- values and gradients -------------------------------------------------------------------------------------------


@each_ablation
def test_logits_and_gradients_are_those_of_a_second_implementation(changes):
    model, tokens = make(changes), some_tokens()
    expected = reference_logits(dict(model.named_parameters(remove_duplicate=False)), model.config, tokens)
    out = model(tokens)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    upstream = torch.randn_like(out)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = (torch.autograd.grad(logits, parameters, upstream) for logits in (out, expected))
    for name, left, right in zip(names, *gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-4)


@each_ablation
def test_the_gradient_predicts_how_the_loss_changes(changes):
    model, tokens = make(changes).double(), some_tokens()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss_of(model, tokens), parameters)
    torch.manual_seed(2)
    directions = [torch.randn_like(parameter) for parameter in parameters]
    expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
    losses, step = [], 1e-6
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * step * direction
            losses.append(loss_of(model, tokens))
    assert float(losses[0] - losses[1]) / (2 * step) == pytest.approx(float(expected), rel=1e-5)


def test_gradients_are_those_of_transformers(tmp_path):
    model, tokens = make(), some_tokens()
    theirs = LlamaForCausalLM.from_pretrained(export_llama(model, tmp_path))
    loss_of(model, tokens).backward()
    F.cross_entropy(theirs(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    pairs = {
        "token_embeddings": "model.embed_tokens",
        "layers.0.attn.v_proj": "model.layers.0.self_attn.v_proj",
        "layers.1.attn.output_proj": "model.layers.1.self_attn.o_proj",
        "layers.0.ffn.w1": "model.layers.0.mlp.gate_proj",
        "layers.1.ffn.w3": "model.layers.1.mlp.up_proj",
        "layers.0.ln1": "model.layers.0.input_layernorm",
        "ln_final": "model.norm",
        "lm_head": "lm_head",
    }
    for ours, others in pairs.items():
        left, right = model.get_submodule(ours).weight.grad, theirs.get_submodule(others).weight.grad
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("leading", [(), (1,), (2, 3)])
def test_any_leading_dimensions(leading):
    model, tokens = make(), torch.randint(50, (*leading, 9))
    out = model(tokens)
    assert out.shape == (*leading, 9, 50)
    torch.testing.assert_close(out.reshape(-1, 9, 50), model(tokens.reshape(-1, 9)))


# ---- what holds of such models --------------------------------------------------------------------------------------


@each_ablation
def test_no_token_sees_a_later_one(changes):
    model, tokens = make(changes), some_tokens()
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 50
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.isclose(before[:, 12:], after[:, 12:]).all(dim=-1).any()


@pytest.mark.parametrize("position", ["rope", "none"])
def test_one_layer_without_positions_sees_a_set_of_tokens(position):
    """A single NoPE layer sums over earlier tokens, so their order is lost; RoPE keeps it."""
    model = make({"position": position, "num_layers": 1})
    tokens = some_tokens(1)
    shuffled = tokens.clone()
    shuffled[0, :19] = tokens[0, torch.randperm(19, generator=torch.Generator().manual_seed(0))]
    same = torch.allclose(model(tokens)[0, -1], model(shuffled)[0, -1], rtol=1e-4, atol=1e-4)
    assert same == (position == "none")


def test_deeper_models_without_positions_do_know_the_order():
    """The causal mask alone tells a second layer how far along it is."""
    model, tokens = make({"position": "none"}), some_tokens(1)
    tokens[0, :2] = torch.tensor([3, 4])
    swapped = tokens.clone()
    swapped[0, :2] = torch.tensor([4, 3])
    assert not torch.allclose(model(tokens)[0, -1], model(swapped)[0, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"norm": "post"}, {"tie_embeddings": True}, {"qk_norm": True}])
def test_an_untrained_model_guesses_evenly(changes):
    torch.manual_seed(0)
    model = transformer_lm(1000, 32, 64, 2, 4, **changes)
    loss = loss_of(model, torch.randint(1000, (8, 33)))
    assert loss.item() == pytest.approx(math.log(1000), abs=0.3)


@each_ablation
def test_a_cache_gives_the_logits_of_the_whole_sequence(changes):
    model, tokens = make(changes), some_tokens(3)
    cache = KeyValueCache(model.config, 3, 20, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        pieces = [model(tokens[:, start:stop], cache=cache) for start, stop in ((0, 7), (7, 8), (8, 15), (15, 20))]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), rtol=1e-4, atol=1e-4)
        assert cache.length == 20
        cache.clear()
        torch.testing.assert_close(model(tokens, cache=cache), model(tokens))


# ---- construction ---------------------------------------------------------------------------------------------------


def test_state_dict_names_are_the_courses():
    names = ["token_embeddings.weight"]
    for layer in (0, 1):
        parts = [f"attn.{part}_proj" for part in ("q", "k", "v", "output")]
        parts += ["ffn.w1", "ffn.w2", "ffn.w3", "ln1", "ln2"]
        names += [f"layers.{layer}.{part}.weight" for part in parts]
    names += ["ln_final.weight", "lm_head.weight"]
    assert list(make().state_dict()) == names
    block = {name.removeprefix("layers.0.") for name in names if name.startswith("layers.0.")}
    assert set(TransformerBlock(24, 3, 40).state_dict()) == block


@each_ablation
def test_a_configuration_builds_the_same_model_again(changes):
    model = make(changes)
    again = BasicsTransformerLM.from_config(TransformerConfig.from_dict(model.config.to_dict()))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(some_tokens()), model(some_tokens()))


def test_transformer_lm_has_the_training_programs_defaults():
    assert transformer_lm(device="meta").config == TransformerConfig()
    model = transformer_lm(vocab_size=60, context_len=8, d_model=16, num_layers=1, num_heads=2, norm="post")
    assert model.config == TransformerConfig(60, 8, 16, 1, 2, norm="post")
    course = BasicsTransformerLM(60, 8, 16, 1, 2, 64, 10_000.0)
    assert course.config == TransformerConfig(60, 8, 16, 1, 2)


def test_tied_embeddings_stay_one_parameter():
    model = make({"tie_embeddings": True})
    for same in (model, copy.deepcopy(model), model.double()):
        assert same.lm_head.weight is same.token_embeddings.weight
    assert len(list(model.parameters())) == len(list(make().parameters())) - 1


def test_casts_and_devices():
    model = make()
    half = copy.deepcopy(model).bfloat16()
    assert half(some_tokens()).dtype == torch.bfloat16
    torch.testing.assert_close(half(some_tokens()).float(), model(some_tokens()), rtol=0.1, atol=0.3)
    empty = BasicsTransformerLM.from_config(SMALL, device="meta")
    empty.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(empty(some_tokens()), model(some_tokens()))


def test_too_many_tokens_are_refused():
    for position in ("rope", "none"):
        with pytest.raises(UsageError, match="21 tokens do not fit the context length of 20"):
            make({"position": position})(some_tokens(1, 21))


# ---- ways to run it -------------------------------------------------------------------------------------------------


def test_autocast_trains_in_bfloat16_and_keeps_float32_gradients():
    model, tokens = make(), some_tokens()
    exact = loss_of(model, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(tokens).dtype == torch.bfloat16
        loss = loss_of(model, tokens)
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    loss.backward()
    expected = torch.autograd.grad(exact, list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad.dtype == torch.float32
        assert F.cosine_similarity(parameter.grad.flatten(), gradient.flatten(), dim=0) > 0.99


def test_runs_are_repeatable_bit_for_bit_and_free_of_warnings():
    tokens = some_tokens(4)
    torch.use_deterministic_algorithms(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runs = []
            for _ in range(2):
                model = make()
                loss_of(model, tokens).backward()
                runs.append([parameter.grad for parameter in model.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(left, right) for left, right in zip(*runs, strict=True))


@pytest.mark.slow
def test_a_compiled_model_computes_the_same():
    model, tokens = make({"qk_norm": True}), some_tokens()
    compiled = torch.compile(model, fullgraph=True)
    out = compiled(tokens)
    torch.testing.assert_close(out, model(tokens), rtol=1e-4, atol=1e-4)
    upstream = torch.randn_like(out)
    parameters = list(model.parameters())
    gradients = (torch.autograd.grad(logits, parameters, upstream) for logits in (out, model(tokens)))
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("changes", [ABLATIONS[0], ABLATIONS[-1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_computes_the_same(changes, dtype):
    model, tokens = make(changes), some_tokens()
    expected = model(tokens)
    on_gpu = model.cuda()
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = on_gpu(tokens.cuda())
        loss_of(on_gpu, tokens.cuda()).backward()
    tolerance = {"rtol": 1e-3, "atol": 1e-2} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.5}
    torch.testing.assert_close(out.cpu().float(), expected, **tolerance)
    assert all(torch.isfinite(parameter.grad).all() for parameter in on_gpu.parameters())
