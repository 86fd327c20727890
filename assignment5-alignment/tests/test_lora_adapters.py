"""LoRA against its formula, and what training touches of a model with adapters."""

import copy

import pytest
import torch

from cs336_alignment.lora import (
    LoRALinear,
    apply_lora,
    has_lora,
    load_lora,
    lora_state_dict,
    merge_lora,
    merged_state_dict,
    save_lora,
)
from cs336_alignment.policy import load_policy, save_policy
from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.replica import Replica
from cs336_basics.command_line import UsageError

from .tiny_models import tiny_model, tiny_tokenizer

IDS = torch.tensor([[5, 9, 200, 31, 7, 7], [8, 1, 3, 250, 44, 2]])


def adapted_model(seed=1, **settings):
    """A model whose adapters have left their start."""
    model = tiny_model(**settings)
    apply_lora(model, rank=3, alpha=7.0)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_()
    return model


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "olmo2"])
def test_training_starts_from_the_base_model_exactly(model_type):
    model = tiny_model(model_type)
    before = model(IDS).logits
    assert apply_lora(model, rank=4) == 2 * 7
    assert torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_layer_computes_the_formula_and_its_gradients(with_bias):
    torch.manual_seed(0)
    base = torch.nn.Linear(5, 4, bias=with_bias, dtype=torch.float64)
    layer = LoRALinear(base, rank=2, alpha=3.0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    a = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)

    def output(x, a, b):
        return torch.func.functional_call(layer, {"lora_a": a, "lora_b": b}, (x,))

    weight = base.weight + 1.5 * b @ a
    expected = torch.einsum("bsi,oi->bso", x, weight) + (base.bias if with_bias else 0)
    torch.testing.assert_close(output(x, a, b), expected, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(output, (x, a, b))  # finite differences


def test_gradients_of_the_adapters_follow_from_the_weights_gradient():
    """With W' = W + s B A: dL/dB = s dL/dW' A^T and dL/dA = s B^T dL/dW', in every layer of a whole model."""
    model = adapted_model()
    merged = tiny_model()
    merged.load_state_dict(merged_state_dict(model))
    for each in (model, merged):
        each(IDS, labels=IDS).loss.backward()
    scale = 7.0 / 3
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear)]
    for name, layer in layers:
        of_weight = merged.get_submodule(name).weight.grad
        torch.testing.assert_close(layer.lora_b.grad, scale * of_weight @ layer.lora_a.T, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(layer.lora_a.grad, scale * layer.lora_b.T @ of_weight, rtol=1e-9, atol=1e-12)


def test_merged_equals_unmerged_and_the_training_copy_stays():
    model = adapted_model(tie_word_embeddings=True)
    expected = model(IDS).logits
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = tiny_model(seed=5, tie_word_embeddings=True)
    plain.load_state_dict(merged_state_dict(model))  # strictly: the names of the base model
    torch.testing.assert_close(plain(IDS).logits, expected, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert has_lora(model)

    merge_lora(model)
    assert not has_lora(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(type(part) is not LoRALinear for part in model.modules())
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_only_adapters_get_gradients_moments_and_updates():
    model = adapted_model().train()
    before = copy.deepcopy(model.state_dict())
    replica = Replica(model, TrainingConfig(lr=0.1))
    replica.forward(IDS, labels=IDS).loss.backward()
    adapters = lora_state_dict(model).keys()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == set(adapters)
    replica.optimizer.step()
    assert len(replica.optimizer.state) == len(adapters)
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(adapters)
    assert set(replica.trained_state()) == set(adapters)  # so checkpoints are small


def test_tied_weights_of_the_base_stay_out_of_checkpoints():
    model = adapted_model(tie_word_embeddings=True)
    assert set(Replica(model, TrainingConfig()).trained_state()) == set(lora_state_dict(model))


def test_dropout_is_on_the_adapters_input_alone_and_only_in_training():
    torch.manual_seed(0)
    base = torch.nn.Linear(64, 8, dtype=torch.float64)
    layer = LoRALinear(base, rank=4, alpha=4.0, dropout=0.25)
    torch.nn.init.normal_(layer.lora_b)
    x = torch.randn(20_000, 64, dtype=torch.float64)
    whole = layer.eval()(x)
    torch.testing.assert_close(whole, x @ layer.merged_weight().T + base.bias)
    dropped = layer.train()(x)
    change, dropped_change = whole - base(x), dropped - base(x)
    assert not torch.allclose(change, dropped_change)
    # Inverted dropout: the expectation stays, and so the regression on the undropped change has the slope 1.
    slope = (change * dropped_change).sum() / (change * change).sum()
    assert abs(slope - 1) < 0.02
    layer.lora_b.data.zero_()
    assert torch.equal(layer(x), base(x))


def test_half_precision_weights_get_fp32_adapters_and_merge_with_one_rounding():
    model = adapted_model(dtype=torch.bfloat16)
    assert {value.dtype for value in lora_state_dict(model).values()} == {torch.float32}
    assert model(IDS).logits.dtype == torch.bfloat16
    for name, layer in model.named_modules():
        if isinstance(layer, LoRALinear):
            exact = layer.weight.double() + layer.scale * layer.lora_b.double() @ layer.lora_a.double()
            merged = merged_state_dict(model)[f"{name}.weight"]
            assert merged.dtype == torch.bfloat16
            torch.testing.assert_close(merged.double(), exact, rtol=2**-8, atol=1e-6)


def test_adapters_are_saved_alone_and_loaded(tmp_path):
    model = adapted_model()
    save_lora(model, tmp_path / "adapters.safetensors")
    other = tiny_model()
    apply_lora(other, rank=3, alpha=7.0)
    load_lora(other, tmp_path / "adapters.safetensors")
    assert torch.equal(other(IDS).logits, model(IDS).logits)

    narrow = tiny_model()
    apply_lora(narrow, rank=2)
    with pytest.raises(UsageError, match=r"lora_a of shape \[3, 32\], the model \[2, 32\]"):
        load_lora(narrow, tmp_path / "adapters.safetensors")
    fewer = tiny_model()
    apply_lora(fewer, rank=3, targets=["q_proj"])
    with pytest.raises(UsageError, match="adapters of other layers"):
        load_lora(fewer, tmp_path / "adapters.safetensors")
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="damaged"):
        load_lora(model, tmp_path / "broken")


def test_targets_are_ends_of_names():
    model = tiny_model()
    assert apply_lora(model, rank=2, targets=["layers.1.self_attn.q_proj", "lm_head"]) == 2
    assert isinstance(model.lm_head, LoRALinear)
    with pytest.raises(UsageError, match="already"):
        apply_lora(model, rank=2)
    with pytest.raises(UsageError, match="lora_rank is 0"):
        apply_lora(tiny_model(), rank=0)
    with pytest.raises(UsageError, match="lora_targets c_attn fits no layer; this model has down_proj"):
        apply_lora(tiny_model(), rank=2, targets=["c_attn"])
    with pytest.raises(UsageError, match="lm_head, whose weight is tied"):
        apply_lora(tiny_model(tie_word_embeddings=True), rank=2, targets=["q_proj", "lm_head"])


def test_a_saved_policy_has_its_adapters_merged(tmp_path):
    model = adapted_model()
    save_policy(model, tiny_tokenizer(), tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy", "cpu", torch.float64)
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-12, atol=1e-12)
