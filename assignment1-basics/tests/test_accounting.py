"""Counts from the configuration against those of the real model: tensors, matrix products, what autograd keeps."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cs336_basics.accounting import (
    PRESETS,
    forward_flops,
    forward_flops_per_token,
    memory,
    num_parameters,
    parameters,
    saved_activations,
    textbook_activations,
    training_flops_per_token,
)
from cs336_basics.model import BasicsTransformerLM, TransformerConfig, scaled_dot_product_attention
from cs336_basics.model.functional import causal_mask
from cs336_basics.trainer.cross_entropy import cross_entropy

SMALL = TransformerConfig(vocab_size=70, context_length=24, d_model=32, num_layers=3, num_heads=4, d_ff=40)
VARIANTS = {
    "standard": SMALL,
    "post-norm": replace(SMALL, norm="post"),
    "no norm": replace(SMALL, norm="none"),
    "NoPE": replace(SMALL, position="none"),
    "SiLU": replace(SMALL, ffn="silu"),
    "tied": replace(SMALL, tie_embeddings=True),
    "QK-norm": replace(SMALL, qk_norm=True),
    "QK-norm, NoPE": replace(SMALL, qk_norm=True, position="none", num_heads=2),
    "all at once": replace(SMALL, norm="post", position="none", ffn="silu", tie_embeddings=True, qk_norm=True),
}
each_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())


def whole_square_attention(q, k, v, is_causal):
    return scaled_dot_product_attention(q, k, v, causal_mask(q.shape[-2], k.shape[-2]) if is_causal else None)


def counted_flops(model: BasicsTransformerLM, batch_size: int, length: int, backward: bool) -> int:
    tokens = torch.randint(model.config.vocab_size, (batch_size, length + 1))
    with FlopCounterMode(display=False) as counter:
        loss = cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
        if backward:
            loss.backward()
    return counter.get_total_flops()


@each_variant
def test_parameters_are_the_models(config):
    model = BasicsTransformerLM.from_config(config, device="meta")
    assert num_parameters(config) == sum(p.numel() for p in model.parameters())
    named = {name: p.numel() for name, p in model.named_parameters()}
    parts = parameters(config)
    assert parts["attention"] == sum(count for name, count in named.items() if "_proj." in name)
    assert parts["feed-forward"] == sum(count for name, count in named.items() if ".ffn." in name)
    norms = ("ln1.weight", "ln2.weight", "ln_final.weight", "_norm.weight")
    assert parts["norms"] == sum(count for name, count in named.items() if name.endswith(norms))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_their_models(name):
    model = BasicsTransformerLM.from_config(PRESETS[name], device="meta")
    assert num_parameters(PRESETS[name]) == sum(p.numel() for p in model.parameters())


def test_gpt2_xl_as_worked_by_hand():
    config = replace(PRESETS["gpt2-xl"], d_ff=6400)
    assert num_parameters(config) == 2_127_057_600
    # Per layer and token: 4 projections of 1600², scores and values over 1024 tokens, three matrices of 1600 x 6400.
    by_hand = 48 * 2 * (4 * 1600**2 + 2 * 1024 * 1600 + 3 * 1600 * 6400) + 2 * 1600 * 50257
    assert forward_flops_per_token(config) == by_hand
    assert forward_flops_per_token(config) * 1024 == 4_513_336_524_800


@each_variant
@pytest.mark.parametrize("length", [24, 10])
def test_operations_are_those_counted(config, length):
    model = BasicsTransformerLM.from_config(config, attention_fn=whole_square_attention)
    tokens = 2 * length
    assert counted_flops(model, 2, length, backward=False) == tokens * forward_flops_per_token(config, length)
    assert counted_flops(model, 2, length, backward=True) == tokens * training_flops_per_token(config, length)


def test_tiles_save_part_of_the_attention_only():
    config = replace(SMALL, context_length=256)
    model = BasicsTransformerLM.from_config(config)
    parts = forward_flops(config)
    attention = parts["attention scores"] + parts["attention-weighted values"]
    counted = counted_flops(model, 1, 256, backward=False) / 256
    # Four tiles of 64 queries see 64, 128, 192 and 256 keys: 10/16 of the square.
    assert counted == forward_flops_per_token(config) - attention * 6 / 16


@each_variant
def test_saved_activations_are_what_autograd_keeps(config):
    torch.manual_seed(0)
    model = BasicsTransformerLM.from_config(config)
    not_activations = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, tuple[torch.UntypedStorage, int]] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in not_activations:
            kept[storage.data_ptr()] = (storage, storage.nbytes() // 4)
        return tensor

    tokens = torch.randint(config.vocab_size, (3, config.context_length + 1))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
    per_token = sum(values for _, values in kept.values()) / (3 * config.context_length)
    assert loss.requires_grad
    # The loss keeps one number per token of its own.
    assert per_token == saved_activations(config) + 1


def test_memory_adds_up():
    parts = memory(SMALL, batch_size=5)
    count = num_parameters(SMALL)
    assert (parts["parameters"], parts["gradients"], parts["AdamW state"]) == (4 * count, 4 * count, 8 * count)
    assert parts["saved activations"] == 4 * 5 * 24 * saved_activations(SMALL)
    assert parts["gradient of the logits"] == 4 * 5 * 24 * 70
    optimizer_state = 2 * sum(p.nbytes for p in BasicsTransformerLM.from_config(SMALL).parameters())
    assert parts["AdamW state"] == optimizer_state


def test_textbook_activations_as_worked_by_hand():
    # One layer, one head: 2 norms, q, k, v, values, projection, output: 8 x 4; 2 attention rows of 3; 4 x 6 hidden.
    config = TransformerConfig(vocab_size=9, context_length=3, d_model=4, num_layers=1, num_heads=1, d_ff=6)
    assert textbook_activations(config) == (8 * 4 + 2 * 3 + 4 * 6) + 4 + 9


def run_command_with(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["accounting.py", *arguments])
    runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "accounting.py"), run_name="__main__")


def test_the_command_prints_tables(monkeypatch, capsys):
    run_command_with(monkeypatch)
    out = capsys.readouterr().out
    assert "default: vocab_size 10000" in out
    assert "22.70   100.0 %" in out


def test_the_command_prints_json_for_all_presets(monkeypatch, capsys):
    run_command_with(monkeypatch, "--preset", "all", "--json", "--batch_size", "2")
    counts = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(counts) == list(PRESETS)
    for name, config in PRESETS.items():
        assert counts[name]["num_parameters"] == num_parameters(config)
        assert counts[name]["memory_bytes"] == memory(config, 2)


def test_flags_change_the_preset(monkeypatch, capsys):
    flags = "--preset gpt2-small --d_model 960 --ffn silu --context_len 64 --tie_embeddings --json"
    run_command_with(monkeypatch, *flags.split())
    (counts,) = json.loads(capsys.readouterr().out)
    expected = TransformerConfig(50_257, 64, 960, 12, 12, ffn="silu", tie_embeddings=True)
    assert counts["config"] == expected.to_dict()


def test_the_command_refuses_impossible_shapes(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command_with(monkeypatch, "--num_heads", "7")
    assert stopped.value.code == 2
    assert "d_model 512 is not a multiple of num_heads 7" in capsys.readouterr().err
