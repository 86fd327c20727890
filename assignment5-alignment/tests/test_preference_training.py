"""The DPO program: batches, the cached reference, accumulation, exact resume, LoRA, and that it learns."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cs336_alignment.policy import load_policy, load_trainable_policy
from cs336_alignment.preference import dpo, reference
from cs336_alignment.preference.batches import pair_batch, split_by_length
from cs336_alignment.preference.dpo import DPOConfig, DPOTrainer
from cs336_alignment.preference.dpo_loss import per_instance_dpo_loss
from cs336_alignment.preference.pair_trainer import BEST_FOLDER
from cs336_alignment.preference.pairs import PreferencePair, alpaca_pair, encode_pair
from cs336_alignment.preference.reference import REFERENCE_NAME, reference_log_probs, response_log_probs
from cs336_alignment.training.loop import train
from cs336_alignment.training.replica import Replica
from cs336_basics.command_line import UsageError, run_command
from cs336_basics.run_log import read_metrics

from .preference_cases import expect_same_tensors, make_pairs, prepare
from .tiny_models import tiny_model, tiny_tokenizer


def make_trainer(config, tokenizer, pairs):
    frozen = reference_log_probs(config, config.reference or config.model, pairs.pairs, 2, progress=False)
    return DPOTrainer(config, Replica(load_trainable_policy(config), config), tokenizer, pairs, frozen)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def test_rows_are_chosen_then_rejected_with_their_responses_marked():
    tokenizer = tiny_tokenizer()
    pairs = [encode_pair(tokenizer, PreferencePair(**pair)) for pair in make_pairs(5)]
    batch = pair_batch(pairs, np.array([3, 0]), pad_id=2)
    for row, (index, side) in enumerate([(3, "chosen"), (0, "chosen"), (3, "rejected"), (0, "rejected")]):
        length = batch.lengths[row]
        assert tokenizer.decode(batch.input_ids[row, :length]).startswith("<bos>Question")
        assert set(batch.input_ids[row, length:].tolist()) <= {2}
        response = tokenizer.decode(batch.input_ids[row][batch.response_mask[row]])
        assert response == make_pairs(5)[index][side] + "<eos>"


@pytest.mark.parametrize(("number", "parts"), [(7, 3), (6, 1), (4, 4)])
def test_parts_hold_every_pair_once_by_length(number, parts):
    pairs = [encode_pair(tiny_tokenizer(), PreferencePair(**pair)) for pair in make_pairs(number)]
    split = split_by_length(pairs, np.arange(number), parts)
    assert sorted(np.concatenate(split).tolist()) == list(range(number))
    lengths = [pairs[index].length for part in split for index in part]
    assert lengths == sorted(lengths)
    assert max(map(len, split)) - min(map(len, split)) <= 1


@pytest.mark.parametrize("chunk_tokens", [None, 5])
def test_the_batched_loss_is_that_of_single_pairs(folder, chunk_tokens):
    """In float64, with both models in full."""
    policy, frozen, tokenizer = tiny_model(seed=0), tiny_model(seed=1), tiny_tokenizer()
    texts = [PreferencePair(**pair) for pair in make_pairs(5)]
    pairs = [encode_pair(tokenizer, alpaca_pair(pair)) for pair in texts]
    batch = pair_batch(pairs, np.arange(5), pad_id=2)
    with torch.no_grad():
        known = response_log_probs(frozen, batch)
    losses = dpo.preference_loss(*response_log_probs(policy, batch, chunk_tokens), *known, beta=0.2).loss
    for loss, pair in zip(losses, texts, strict=True):
        single = per_instance_dpo_loss(policy, frozen, tokenizer, 0.2, pair.prompt, pair.chosen, pair.rejected)
        torch.testing.assert_close(loss, single, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"loss": "ipo"}, {"label_smoothing": 0.1}, {"optimizer": "rmsprop"}])
def test_accumulated_gradients_are_those_of_the_whole_batch(folder, settings):
    whole = make_trainer(*prepare(folder, DPOConfig, dtype=torch.float32, **settings))
    parts = make_trainer(*prepare(folder, DPOConfig, dtype=torch.float32, gradient_accumulation_steps=3, **settings))
    for trainer in (whole, parts):
        trainer.replica.module.double()
    first, second = whole.train_step(), parts.train_step()
    assert second == pytest.approx(first, rel=1e-6, abs=1e-9)
    for ours, theirs in zip(parts.policy.parameters(), whole.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}, {"optimizer": "rmsprop", "autocast": "bfloat16"}])
def test_a_resumed_run_is_the_one_that_was_never_stopped(folder, settings):
    config, tokenizer, pairs = prepare(folder, DPOConfig, **settings)
    whole = make_trainer(config, tokenizer, pairs)
    train(whole, progress=False)
    log = read_metrics(folder / "run" / "metrics.jsonl")
    resumed_config = replace(config, resume_ckp=str(folder / "run" / "checkpoints" / "checkpoint_1.pt"))
    resumed = make_trainer(resumed_config, tokenizer, pairs)
    train(resumed, progress=False)
    expect_same_tensors(whole.policy.state_dict(), resumed.policy.state_dict())
    again = read_metrics(folder / "run" / "metrics.jsonl")
    assert [{**entry, "seconds": 0} for entry in again] == [{**entry, "seconds": 0} for entry in log]


def test_it_learns_what_is_preferred_and_keeps_the_best_model(folder):
    config, tokenizer, pairs = prepare(folder, DPOConfig, num_pairs=72, num_steps=24, batch_size=16, lr=3e-3)
    trainer = make_trainer(config, tokenizer, pairs)
    result = train(trainer, progress=False)
    log = read_metrics(folder / "run" / "metrics.jsonl")
    assert log[0]["val_loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert result.metrics["val_accuracy"] == 1.0
    assert result.metrics["val_loss"] < 0.3
    for entry in log[2:]:
        assert entry["margin"] == pytest.approx(entry["chosen_reward"] - entry["rejected_reward"], abs=1e-4)
    best = max((entry for entry in log[1:] if "val_loss" in entry), key=lambda e: (e["val_accuracy"], -e["val_loss"]))
    kept = make_trainer(
        replace(config, model=str(folder / "run" / BEST_FOLDER), reference=config.model), tokenizer, pairs
    )
    kept.replica.module.eval()
    metrics = kept.evaluate()
    assert metrics["val_loss"] == pytest.approx(best["val_loss"], rel=1e-4)


def test_lora_trains_adapters_alone_and_starts_from_the_reference(folder):
    config, tokenizer, pairs = prepare(folder, DPOConfig, lora_rank=2, num_steps=2)
    trainer = make_trainer(config, tokenizer, pairs)
    before = {name: value.clone() for name, value in trainer.policy.state_dict().items()}
    result = train(trainer, progress=False)
    changed = {name for name, value in trainer.policy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert read_metrics(result.folder / "metrics.jsonl")[0]["val_loss"] == pytest.approx(np.log(2), abs=1e-5)
    merged = load_policy(result.model, "cpu")
    ids = torch.arange(40).view(2, 20)
    torch.testing.assert_close(merged(ids).logits, trainer.policy.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_reference_is_computed_once_and_goes_on_after_a_stop(folder, monkeypatch):
    config, _, pairs = prepare(folder, DPOConfig, eval_batch_size=5)
    whole = reference_log_probs(config, config.model, pairs.pairs, 2, progress=False)
    path = folder / "run" / REFERENCE_NAME
    path.unlink()

    scored = []

    def stopping(model, batch, chunk_tokens):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(batch)
        return response_log_probs(model, batch, chunk_tokens)

    monkeypatch.setattr(reference, "response_log_probs", stopping)
    with pytest.raises(KeyboardInterrupt):
        reference_log_probs(config, config.model, pairs.pairs, 2, progress=False)

    todo = []

    def counting(model, batch, chunk_tokens):
        todo.extend(batch.indices.tolist())
        return response_log_probs(model, batch, chunk_tokens)

    monkeypatch.setattr(reference, "response_log_probs", counting)
    resumed = reference_log_probs(config, config.model, pairs.pairs, 2, progress=False)
    torch.testing.assert_close(resumed, whole)
    done = [index for batch in scored for index in batch.indices.tolist()]
    assert sorted(done + todo) == list(range(len(pairs.pairs)))
    again = reference_log_probs(config, config.model, pairs.pairs, 2, progress=False)
    assert torch.equal(again, resumed)
    assert len(done + todo) == len(pairs.pairs)

    # Another reference's, changed weights', other pairs' and damaged results are not taken over.
    reference_log_probs(config, config.model + "/.", pairs.pairs, 2, progress=False)
    assert len(done + todo) == 2 * len(pairs.pairs)
    weights = folder / "base" / "model.safetensors"
    weights.touch()
    reference_log_probs(config, config.model, pairs.pairs, 2, progress=False)
    assert len(done + todo) == 3 * len(pairs.pairs)
    path.write_bytes(b"damaged")
    reference_log_probs(config, config.model, pairs.pairs[:5], 2, progress=False)
    assert len(done + todo) == 3 * len(pairs.pairs) + 5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"beta": 0.0}, "beta is 0"),
        ({"label_smoothing": 0.7}, "label_smoothing is 0.7"),
        ({"gradient_accumulation_steps": 5}, "gradient_accumulation_steps is 5; allowed are 1 to the batch_size, 4"),
        ({"epochs": 0}, "epochs is 0.0; allowed is any finite number above 0"),
        ({"val_pairs": 24}, "val_pairs is 24, but .* has only 24 pairs"),
        ({"max_length": 3}, "max_length is 3, but each of the 16 training pairs is longer"),
        ({"head_chunk_tokens": 0}, "head_chunk_tokens is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
    ],
)
def test_settings_out_of_range_are_refused(folder, settings, named):
    with pytest.raises(UsageError, match=named):
        prepare(folder, DPOConfig, **settings)


def test_pairs_that_are_too_long_are_left_out_and_counted(folder):
    said = []
    config, tokenizer, pairs = prepare(folder, DPOConfig)
    longest = max(pair.length for pair in pairs.pairs)
    shorter = dpo.load_pair_sets(replace(config, max_length=longest - 1), tokenizer, said.append)
    assert 0 < len(shorter.pairs) < len(pairs.pairs)
    assert any("left out: longer than max_length" in message for message in said)


def test_validation_pairs_are_apart_from_training_pairs(folder):
    config, tokenizer, pairs = prepare(folder, DPOConfig)
    assert (pairs.num_train, len(pairs.val_indices)) == (16, 8)
    assert len({tuple(pair.chosen) for pair in pairs.pairs}) == 24
    named = dpo.load_pair_sets(replace(config, val_data=config.data), tokenizer, lambda message: None)
    assert (named.num_train, len(named.val_indices)) == (24, 24)


def test_the_program_runs_whole(folder, capsys):
    config, _, _ = prepare(folder, DPOConfig)
    flags = ["--model", config.model, "--data", config.data, "--out", str(folder / "out"), "--device", "cpu"]
    dpo.main([*flags, "--smoke", "--val_pairs", "8", "--loss", "ipo"])
    assert "val_accuracy" in capsys.readouterr().out
    entries = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [0, 1, 2, 3]
    assert load_policy(folder / "out" / "model", "cpu").config.vocab_size == 320
    with pytest.raises(SystemExit) as stopped:
        run_command(dpo.main, [*flags, "--beta", "-1"])
    assert stopped.value.code == 2
    assert "beta is -1.0" in capsys.readouterr().err
