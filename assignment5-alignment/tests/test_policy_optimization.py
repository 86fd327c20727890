"""GRPO's steps against a plain loop, and what each variant and option does."""

import numpy as np
import pytest
import torch

from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.grpo.trainer import GRPOTrainer
from cs336_alignment.grpo.variants import VARIANTS
from cs336_alignment.lora import apply_lora
from cs336_basics.command_line import UsageError

from .online_cases import (
    QUESTIONS,
    begins_with_the_answer,
    expect_same_weights,
    make_policy,
    make_tokenizer,
    make_trainer,
    repeats_the_answer,
    take_steps,
    token_log_probs,
)

SMALL = {"rollout_batch_size": 12, "group_size": 4, "max_tokens": 6, "stop": "", "lr": 3e-3, "max_grad_norm": 0.5}


def plain_loss(variant, log_probs, old, reference, advantages, kl_coefficient, max_tokens):
    """The formulas of the papers, response by response."""
    losses = []
    for new, before, base, advantage in zip(log_probs, old, reference, advantages, strict=True):
        ratio = (new - before).exp()
        if variant in ("reinforce_baseline", "maxrl", "rft"):
            loss = -advantage * new
        elif variant == "grpo_no_clip":
            loss = -advantage * ratio
        elif variant == "gspo":
            ratio = (new - before).mean().exp()
            loss = -torch.min(ratio * advantage, ratio.clamp(1 - 3e-4, 1 + 4e-4) * advantage).expand(len(new))
        elif variant == "cispo":
            loss = -ratio.clamp(max=1.2).detach() * advantage * new
        else:
            high = 0.28 if variant == "dapo" else 0.2
            loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1 + high) * advantage)
        if kl_coefficient:
            loss = loss + kl_coefficient * ((base - new).exp() - (base - new) - 1)
        losses.append(loss)
    if variant == "dr_grpo":
        return torch.cat(losses).sum() / (len(losses) * max_tokens)
    if variant in ("dapo", "cispo"):
        return torch.cat(losses).mean()
    return torch.stack([loss.mean() for loss in losses]).mean()


def plain_advantages(variant, rewards, group_size):
    groups = torch.tensor(rewards, dtype=torch.float64).view(-1, group_size)
    mean = groups.mean(dim=1, keepdim=True)
    if variant == "rft":
        return groups.flatten()
    if variant == "dr_grpo":
        return (groups - mean).flatten()
    return ((groups - mean) / ((mean if variant == "maxrl" else groups.std(dim=1, keepdim=True)) + 1e-6)).flatten()


def plain_loop(config, rollouts_of_steps, kl_coefficient=0.0):
    """Torch's own optimizer and clipping, one response at a time, on the rollouts that the trainer sampled."""
    policy, first, tokenizer = make_policy(), make_policy(), make_tokenizer()
    decayed = [parameter for parameter in policy.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in policy.parameters() if parameter.ndim == 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
    losses, norms = [], []
    for step, rollouts in enumerate(rollouts_of_steps):
        tokens = [(tokenizer(rollout.prompt).input_ids, rollout.token_ids) for rollout in rollouts]
        advantages = plain_advantages(config.variant, [rollout.reward for rollout in rollouts], config.group_size)
        with torch.no_grad():
            old = [token_log_probs(policy, *pair) for pair in tokens]
            reference = [token_log_probs(first, *pair) for pair in tokens]
        for epoch in range(config.epochs_per_rollout_batch):
            order = np.arange(len(rollouts))
            if config.updates_per_step > 1:
                order = np.random.default_rng([config.seed, step, epoch]).permutation(order)
            for rows in np.split(order, len(rollouts) // config.train_batch_size):
                new = [token_log_probs(policy, *tokens[row]) for row in rows]
                loss = plain_loss(
                    config.variant, new, [old[row] for row in rows], [reference[row] for row in rows],
                    advantages[rows], kl_coefficient, config.max_tokens,
                )  # fmt: skip
                optimizer.zero_grad()
                loss.backward()
                norms.append(torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm).item())
                optimizer.step()
                losses.append(loss.item())
    return policy, losses, norms


ON_POLICY = {}
OFF_POLICY = {"epochs_per_rollout_batch": 2, "train_batch_size": 6}
CASES = [
    ("grpo_clip", {"gradient_accumulation_steps": 4}),
    ("grpo_clip", OFF_POLICY),
    ("grpo_no_clip", OFF_POLICY),
    ("reinforce_baseline", OFF_POLICY),
    ("rft", ON_POLICY),
    ("maxrl", {"gradient_accumulation_steps": 3, "weight_decay": 0.1}),
    ("dr_grpo", {**OFF_POLICY, "gradient_accumulation_steps": 2}),
    ("gspo", OFF_POLICY),
    ("cispo", OFF_POLICY),
    ("dapo", {**OFF_POLICY, "gradient_accumulation_steps": 3}),
    ("grpo_clip", {**OFF_POLICY, "kl_coefficient": 0.1, "head_chunk_tokens": 5}),
]


@pytest.mark.parametrize(("variant", "changes"), CASES)
def test_trajectory_equals_a_plain_loop(variant, changes):
    config = GRPOConfig(**{**SMALL, **changes}, variant=variant)
    reference = make_policy().requires_grad_(False) if config.kl_coefficient else None
    policy = make_policy()
    trainer = make_trainer(GRPOTrainer, config, policy, reference=reference)
    metrics, rollouts = take_steps(trainer, 3)
    expected, losses, norms = plain_loop(config, rollouts, config.kl_coefficient)
    expect_same_weights(policy, expected, rtol=1e-7, atol=1e-9)
    per_step = np.array(losses).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose([entry["loss"] for entry in metrics], per_step, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose([entry["grad_norm"] for entry in metrics], np.reshape(norms, (3, -1)).mean(axis=1), 1e-5)
    assert sum(norms) > 0
    if variant in ("grpo_clip", "dapo", "gspo") and config.updates_per_step > 1:
        assert max(entry["clip_fraction"] for entry in metrics) > 0
    else:
        assert "kl" in metrics[0] or all(0 <= entry["clip_fraction"] <= 1 for entry in metrics)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_takes_a_step(variant):
    policy = make_policy()
    trainer = make_trainer(GRPOTrainer, GRPOConfig(**SMALL, variant=variant), policy)
    (metrics,), _ = take_steps(trainer, 1)
    assert metrics["grad_norm"] > 0
    before = make_policy().state_dict()
    assert any(not torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert metrics["clip_fraction"] == 0, "the only update on fresh rollouts has ratios of 1"


def test_metrics_describe_the_rollouts():
    trainer = make_trainer(GRPOTrainer, GRPOConfig(**SMALL))
    (metrics,), (rollouts,) = take_steps(trainer, 1)
    rewards = np.array([rollout.reward for rollout in rollouts])
    lengths = np.array([len(rollout.token_ids) for rollout in rollouts])
    right = np.array([rollout.answer_reward > 0 for rollout in rollouts])
    assert len(rollouts) == 12
    assert all(len({rollout.prompt for rollout in rollouts[i : i + 4]}) == 1 for i in (0, 4, 8))
    assert metrics["reward"] == pytest.approx(rewards.mean())
    assert metrics["response_length"] == pytest.approx(lengths.mean())
    assert metrics["response_length_wrong"] == pytest.approx(lengths[~right].mean())
    assert metrics["cut_off"] == pytest.approx(np.mean([rollout.finish_reason == "length" for rollout in rollouts]))
    assert metrics["rollout_tokens"] == lengths.sum()
    tokenizer, policy = make_tokenizer(), make_policy()
    entropies = []
    for rollout in rollouts:
        prompt = tokenizer(rollout.prompt).input_ids
        log_p = torch.log_softmax(policy(torch.tensor([prompt + rollout.token_ids])).logits[0], dim=-1)
        entropies.append(-(log_p.exp() * log_p).sum(dim=-1)[len(prompt) - 1 : -1])
    assert metrics["token_entropy"] == pytest.approx(torch.cat(entropies).mean().item(), rel=1e-6)


def test_rollouts_come_from_the_newest_weights_and_from_seeds_of_their_own():
    trainer = make_trainer(GRPOTrainer, GRPOConfig(**{**SMALL, "lr": 0.5}))
    _, (first, second) = take_steps(trainer, 2)
    again = make_trainer(GRPOTrainer, GRPOConfig(**{**SMALL, "lr": 0.5}))
    _, (first_again, second_again) = take_steps(again, 2)
    assert first == first_again
    assert second == second_again
    other = make_trainer(GRPOTrainer, GRPOConfig(**{**SMALL, "lr": 1e-12}))
    _, (same, different) = take_steps(other, 2)
    assert same == first
    assert [r.prompt for r in different] == [r.prompt for r in second]
    assert [r.token_ids for r in different] != [r.token_ids for r in second]


def test_it_learns_which_letter_to_write():
    config = GRPOConfig(**{**SMALL, "rollout_batch_size": 64, "group_size": 8, "max_tokens": 2, "lr": 1e-2})
    trainer = make_trainer(GRPOTrainer, config, make_policy(dtype=torch.float32), begins_with_the_answer, QUESTIONS)
    before = trainer.evaluate()["eval_reward"]
    metrics, _ = take_steps(trainer, 30)
    assert before < 0.4
    assert np.mean([entry["reward"] for entry in metrics[-5:]]) > 0.8
    assert trainer.evaluate()["eval_reward"] > 0.9


def test_kl_pulls_back_to_the_reference():
    def distance(coefficient):
        config = GRPOConfig(**{**SMALL, "lr": 1e-2}, kl_coefficient=coefficient, train_batch_size=6)
        reference = make_policy().requires_grad_(False)
        metrics, _ = take_steps(make_trainer(GRPOTrainer, config, reference=reference), 8)
        expect_same_weights(reference, make_policy(), rtol=0, atol=0)
        return metrics[-1]["kl"]

    assert distance(5.0) < distance(0.001) / 2


def test_dynamic_sampling_prefers_groups_that_tell_something():
    config = GRPOConfig(**SMALL, dynamic_sampling=8)
    trainer = make_trainer(GRPOTrainer, config, reward_fn=begins_with_the_answer)
    (metrics,), (rollouts,) = take_steps(trainer, 1)
    rewards = np.reshape([rollout.reward for rollout in rollouts], (3, 4))
    assert metrics["informative_groups"] == 1
    assert all(len(set(group)) == 2 for group in rewards.tolist())
    assert trainer.draws > 1
    assert trainer.extra_state() == {"draws": trainer.draws}

    def never(response, answer):
        return {"reward": 0.0, "format_reward": 0.0, "answer_reward": 0.0}

    trainer = make_trainer(GRPOTrainer, config, reward_fn=never)
    (metrics,), (rollouts,) = take_steps(trainer, 1)
    assert (trainer.draws, len(rollouts), metrics["grad_norm"]) == (8, 12, 0)


def test_overlong_responses_are_penalized():
    def always(response, answer):
        return {"reward": 1.0, "format_reward": 1.0, "answer_reward": 1.0}

    config = GRPOConfig(**SMALL, overlong_tokens=4, variant="dr_grpo")
    trainer = make_trainer(GRPOTrainer, config, reward_fn=always)
    recorded = []
    trainer.record = lambda rollouts, advantage: recorded.append((rollouts, advantage))
    trainer.train_step()
    ((rollouts, advantages),) = recorded
    penalties = [min(0, max(-1, (2 - len(rollout.token_ids)) / 4)) for rollout in rollouts]
    groups = np.reshape(penalties, (3, 4))
    np.testing.assert_allclose(np.reshape(advantages, (3, 4)), groups - groups.mean(axis=1, keepdims=True), atol=1e-6)
    assert np.ptp(groups) > 0


def test_adapters_alone_are_trained():
    policy = make_policy()
    apply_lora(policy, rank=2)
    trainer = make_trainer(GRPOTrainer, GRPOConfig(**SMALL), policy)
    take_steps(trainer, 2)
    start, now = make_policy().state_dict(), policy.state_dict()
    assert all(torch.equal(now[name], value) for name, value in start.items())
    assert all(value.abs().sum() > 0 for name, value in now.items() if name.endswith("lora_b"))


def test_changes_of_a_variant():
    changed = GRPOConfig(**SMALL, variant="dapo", cliprange=0.1, loss_normalization="constant", baseline="none")
    assert (changed.loss.cliprange, changed.loss.cliprange_high) == (0.1, None)
    assert changed.loss.normalization_constant == 12 * 6
    assert (changed.pieces.baseline, changed.pieces.importance_reweighting) == ("none", "grpo")
    assert GRPOConfig(**SMALL, variant="dapo").loss.cliprange_high == 0.28
    assert GRPOConfig(**SMALL, variant="rft", importance_reweighting="grpo").loss.cliprange == 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 5}, "rollout_batch_size is 12, which group_size 5 does not divide"),
        ({"train_batch_size": 5}, "rollout_batch_size is 12, which train_batch_size 5 does not divide"),
        ({"gradient_accumulation_steps": 5}, "train_batch_size is 12, which gradient_accumulation_steps 5 does not"),
        ({"group_size": 1}, "group_size is 1, .*deviation"),
        ({"min_tokens": 7}, "min_tokens is 7"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"variant": "ppo"}, "variant is 'ppo'; allowed are reinforce"),
        ({"cliprange": -0.1}, "cliprange is -0.1"),
        ({"normalization_constant": 0.0}, "normalization_constant is 0.0"),
        ({"overlong_tokens": 9}, "overlong_tokens is 9; allowed are 0 to max_tokens 6"),
        ({"processes": 2}, "processes is 2, which needs --parallel"),
        ({"parallel": "fsdp", "head_chunk_tokens": 8}, "head_chunk_tokens does not go with fsdp"),
        ({"parallel": "fsdp", "compile": True}, "compile does not go with fsdp"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(UsageError, match=message):
        GRPOConfig(**{**SMALL, **changes})


def test_processes_must_be_able_to_share_a_batch():
    with pytest.raises(UsageError, match="gradient_accumulation_steps 3 times 8 processes, does not divide"):
        GRPOConfig(**SMALL, gradient_accumulation_steps=3).check_shares(8)
    assert repeats_the_answer("ab", "a")["reward"] == 0.5
