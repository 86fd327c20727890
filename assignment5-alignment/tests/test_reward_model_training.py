"""The reward model: scores against transformers' classifier, saving, training, accumulation, resume, the report."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from cs336_alignment.policy import load_trainable_policy
from cs336_alignment.preference.reward_loss import bradley_terry_loss
from cs336_alignment.reward_model import train as reward_training
from cs336_alignment.reward_model.model import RewardModel, load_reward_model, save_reward_model
from cs336_alignment.reward_model.report import accuracy_table, write_reward_report
from cs336_alignment.reward_model.score import score_responses
from cs336_alignment.reward_model.train import RewardModelConfig, RewardModelTrainer
from cs336_alignment.training.loop import train
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.trainer import seed_everything
from cs336_basics.command_line import UsageError
from cs336_basics.confidence import wilson_interval
from cs336_basics.run_log import read_metrics

from .preference_cases import expect_same_tensors, make_pairs, prepare
from .tiny_models import tiny_model, tiny_tokenizer


def make_trainer(config, tokenizer, pairs):
    backbone = load_trainable_policy(config).base_model
    seed_everything(config.seed)
    return RewardModelTrainer(config, Replica(RewardModel(backbone), config), tokenizer, pairs)


def texts():
    return [(pair["prompt"], pair["chosen"]) for pair in make_pairs(7)]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "olmo2"])
@pytest.mark.parametrize("pad_token", ["<pad>", "<eos>"])
def test_scores_are_those_of_transformers_classifier(tmp_path, kind, pad_token):
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer(pad_token)
    model = RewardModel(tiny_model(kind, torch.float32).base_model).eval()
    prompts, responses = zip(*texts(), strict=True)
    scores = score_responses(model, tokenizer, prompts, responses, batch_size=3)
    folder = save_reward_model(model, tokenizer, tmp_path / "model")
    classifier = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert classifier.config.num_labels == 1
    for score, prompt, response in zip(scores, prompts, responses, strict=True):
        ids = torch.tensor([tokenizer.encode(prompt + response + "<eos>")])
        assert score == pytest.approx(classifier(ids).logits.item(), rel=1e-4, abs=1e-5)
    if pad_token == "<pad>":
        batch = tokenizer([a + b + "<eos>" for a, b in texts()], return_tensors="pt", padding=True)
        padded = classifier(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.squeeze(-1)
        assert padded.tolist() == pytest.approx(scores, rel=1e-4, abs=1e-5)
    again = load_reward_model(folder, "cpu")
    assert score_responses(again, tokenizer, prompts, responses) == pytest.approx(scores, rel=1e-5, abs=1e-6)


def test_scores_do_not_depend_on_company():
    tokenizer = tiny_tokenizer()
    model = RewardModel(tiny_model().base_model).eval()
    prompts, responses = zip(*texts(), strict=True)
    together = score_responses(model, tokenizer, prompts, responses, batch_size=7)
    alone = [score_responses(model, tokenizer, [p], [r])[0] for p, r in texts()]
    assert together == pytest.approx(alone, rel=1e-5)
    assert len(set(together)) == 7
    assert score_responses(model, tokenizer, [], []) == []
    with pytest.raises(UsageError, match="got 1 prompts and 0 responses"):
        score_responses(model, tokenizer, ["a"], [])


def test_a_step_is_that_of_the_formula(tmp_path):
    """The loss and the clipped AdamW step by torch, with one pair at a time and no padding."""
    config, tokenizer, pairs = prepare(
        tmp_path, RewardModelConfig, batch_size=6, lr=1e-2, eps=1e-3, schedule="constant", centering=0.1
    )
    ours, reference = make_trainer(config, tokenizer, pairs), make_trainer(config, tokenizer, pairs).replica.module
    ours.replica.module.double()
    reference.double()
    metrics = ours.train_step()
    chosen_indices = reward_training_indices(config, pairs)
    losses, right = [], 0
    for index in chosen_indices:
        chosen, rejected = (
            reference.backbone(torch.tensor([ids])).last_hidden_state[0, -1] @ reference.score.weight[0]
            for ids in (pairs.pairs[index].chosen, pairs.pairs[index].rejected)
        )
        losses.append(torch.log1p(torch.exp(rejected - chosen)) + 0.1 * (chosen + rejected) ** 2)
        right += (chosen > rejected).item()
    loss = torch.stack(losses).mean()
    loss.backward()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-3, weight_decay=0)
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    optimizer.step()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(right / 6)
    assert metrics["margin"] == pytest.approx(metrics["chosen_score"] - metrics["rejected_score"], abs=1e-6)
    for mine, theirs in zip(ours.replica.module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def reward_training_indices(config, pairs):
    from cs336_alignment.training.batch_order import batch_indices

    return batch_indices(0, pairs.num_train, config.batch_size, config.seed)


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    whole = make_trainer(*prepare(tmp_path, RewardModelConfig))
    parts = make_trainer(*prepare(tmp_path, RewardModelConfig, gradient_accumulation_steps=3))
    for trainer in (whole, parts):
        trainer.replica.module.double()
    assert parts.train_step() == pytest.approx(whole.train_step(), rel=1e-6, abs=1e-9)
    for ours, theirs in zip(parts.replica.module.parameters(), whole.replica.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2, "autocast": "bfloat16"}])
def test_a_resumed_run_is_the_one_that_was_never_stopped(tmp_path, settings):
    config, tokenizer, pairs = prepare(tmp_path, RewardModelConfig, **settings)
    whole = make_trainer(config, tokenizer, pairs)
    train(whole, progress=False)
    again = replace(config, resume_ckp=str(tmp_path / "run" / "checkpoints" / "checkpoint_1.pt"), out=config.out)
    resumed = make_trainer(again, tokenizer, pairs)
    train(resumed, progress=False)
    expect_same_tensors(whole.replica.module.state_dict(), resumed.replica.module.state_dict())


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4, "lr": 1e-2}])
def test_it_learns_what_is_preferred(tmp_path, settings):
    given = {"num_pairs": 72, "num_steps": 20, "batch_size": 16, "lr": 3e-3, **settings}
    config, tokenizer, pairs = prepare(tmp_path, RewardModelConfig, **given)
    trainer = make_trainer(config, tokenizer, pairs)
    result = train(trainer, progress=False)
    assert result.metrics["val_accuracy"] == 1.0
    assert result.metrics["val_loss"] < 0.3
    fresh = make_pairs(30, seed=5)
    model = load_reward_model(result.model, "cpu")
    better, worse = (
        score_responses(model, tokenizer, [pair["prompt"] for pair in fresh], [pair[side] for pair in fresh])
        for side in ("chosen", "rejected")
    )
    assert sum(a > b for a, b in zip(better, worse, strict=True)) >= 28


def test_centering_pulls_scores_to_zero():
    """The gradient of its term is 2 c (s_w + s_l) for both."""
    scores = [torch.tensor([3.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)]
    plain = torch.autograd.grad(bradley_terry_loss(*scores).sum(), scores)
    centered = torch.autograd.grad(bradley_terry_loss(*scores, centering=0.5).sum(), scores)
    assert [(b - a).item() for a, b in zip(plain, centered, strict=True)] == pytest.approx([4.0, 4.0])


def test_what_is_no_reward_model_is_refused(tmp_path):
    tiny_model(dtype=torch.float32).save_pretrained(tmp_path / "policy")
    with pytest.raises(UsageError, match="holds a Qwen2ForCausalLM"):
        load_reward_model(tmp_path / "policy", "cpu")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_reward_model(tmp_path / "nothing", "cpu")


def test_report_counts_by_source(tmp_path, capsys):
    margins = [1.0, 2.0, -1.0, 0.0, 3.0]
    sources = ["a", "a", "b", "b", "b"]
    rows = accuracy_table(margins, sources).rows
    assert [row[:3] for row in rows] == [["all pairs", 5, 0.6], ["a", 2, 1.0], ["b", 3, pytest.approx(1 / 3)]]
    assert tuple(rows[0][3:]) == wilson_interval(3, 5)
    assert [row[0] for row in accuracy_table(margins, [""] * 5).rows] == ["all pairs"]
    write_reward_report(tmp_path, margins, sources)
    assert "b: accuracy 0.333 on 3 pairs" in capsys.readouterr().out
    calibration = json.loads((tmp_path / "calibration.json").read_text())
    assert sum(part["pairs"] for part in calibration["bins"]) == 5
    assert "Expected calibration error" in (tmp_path / "report.html").read_text()


def test_the_program_runs_whole(tmp_path, capsys):
    config, _, _ = prepare(tmp_path, RewardModelConfig)
    flags = ["--model", config.model, "--data", config.data, "--out", str(tmp_path / "out"), "--device", "cpu"]
    reward_training.main([*flags, "--smoke", "--val_pairs", "8"])
    out = capsys.readouterr().out
    assert "all pairs: accuracy" in out
    assert (tmp_path / "out" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert [entry["step"] for entry in read_metrics(tmp_path / "out" / "metrics.jsonl")] == [0, 1, 2, 3]
    load_reward_model(tmp_path / "out" / "model", "cpu")
