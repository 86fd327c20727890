"""Expert iteration's steps against a plain loop, and what is kept."""

import numpy as np
import pytest
import torch

from cs336_alignment.expert_iteration.config import ExpertIterationConfig
from cs336_alignment.expert_iteration.trainer import ExpertIterationTrainer
from cs336_basics.command_line import UsageError

from .online_cases import (
    QUESTIONS,
    begins_with_the_answer,
    expect_same_weights,
    make_policy,
    make_tokenizer,
    make_trainer,
    take_steps,
    token_log_probs,
)

SMALL = {
    "questions_per_step": 6, "group_size": 4, "train_batch_size": 6, "max_tokens": 4, "stop": "", "lr": 3e-3,
    "least_reward": 0.2, "max_grad_norm": 0.5,
}  # fmt: skip


def plain_loop(config, rollouts_of_steps):
    """Torch's own optimizer and cross-entropy, one response at a time, on the rollouts that the trainer sampled."""
    policy, tokenizer = make_policy(), make_tokenizer()
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, weight_decay=0
    )
    losses = []
    for step, rollouts in enumerate(rollouts_of_steps):
        right = [rollout for rollout in rollouts if rollout.reward >= config.least_reward]
        if not config.keep_duplicates:
            right = list({(rollout.prompt, rollout.response): rollout for rollout in reversed(right)}.values())[::-1]
        for epoch in range(config.epochs_per_step):
            order = np.random.default_rng([config.seed, step, epoch]).permutation(len(right))
            for start in range(0, len(right), config.train_batch_size):
                log_probs = [
                    token_log_probs(policy, tokenizer(right[row].prompt).input_ids, right[row].token_ids)
                    for row in order[start : start + config.train_batch_size]
                ]
                loss = -torch.cat(log_probs).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
                optimizer.step()
                losses.append(loss.item())
    return policy, losses


@pytest.mark.parametrize(
    "changes", [{}, {"epochs_per_step": 2, "gradient_accumulation_steps": 3}, {"keep_duplicates": True}]
)
def test_trajectory_equals_a_plain_loop(changes):
    config = ExpertIterationConfig(**{**SMALL, **changes})
    policy = make_policy()
    metrics, rollouts = take_steps(make_trainer(ExpertIterationTrainer, config, policy), 3)
    expected, losses = plain_loop(config, rollouts)
    expect_same_weights(policy, expected, rtol=1e-7, atol=1e-9)
    updates = [config.epochs_per_step * -(-entry["kept_rollouts"] // 6) for entry in metrics]
    assert sum(updates) == len(losses)
    assert any(entry["kept_rollouts"] % 6 for entry in metrics), "no batch is uneven"
    means = [part.mean() for part in np.split(np.array(losses), np.cumsum(updates)[:-1])]
    assert [entry["loss"] for entry in metrics] == pytest.approx(means, rel=1e-7)
    assert all(entry["token_entropy"] > 0 for entry in metrics)


def test_only_right_responses_are_kept_and_each_once():
    trainer = make_trainer(ExpertIterationTrainer, ExpertIterationConfig(**SMALL))
    recorded = []
    trainer.record = lambda rollouts, kept: recorded.append((rollouts, kept))
    metrics = trainer.train_step()
    ((rollouts, kept),) = recorded
    chosen = [(rollout.prompt, rollout.response) for rollout, keep in zip(rollouts, kept, strict=True) if keep]
    right = {(rollout.prompt, rollout.response) for rollout in rollouts if rollout.reward >= 0.2}
    assert len(chosen) == len(set(chosen)) == metrics["kept_rollouts"]
    assert set(chosen) == right
    solved = {prompt for prompt, _ in right}
    assert metrics["solved_questions"] == pytest.approx(len(solved) / 6)


def test_a_step_without_right_responses_changes_nothing():
    policy = make_policy()
    trainer = make_trainer(ExpertIterationTrainer, ExpertIterationConfig(**{**SMALL, "least_reward": 2.0}), policy)
    (metrics,), _ = take_steps(trainer, 1)
    assert metrics["kept_rollouts"] == 0
    assert "loss" not in metrics
    expect_same_weights(policy, make_policy(), rtol=0, atol=0)


def test_it_learns_which_letter_to_write():
    config = ExpertIterationConfig(
        **{**SMALL, "questions_per_step": 32, "max_tokens": 2, "lr": 1e-2, "least_reward": 1.0, "train_batch_size": 8}
    )
    policy = make_policy(dtype=torch.float32)
    trainer = make_trainer(ExpertIterationTrainer, config, policy, begins_with_the_answer, QUESTIONS)
    before = trainer.evaluate()["eval_reward"]
    take_steps(trainer, 5)
    assert before < 0.4
    assert trainer.evaluate()["eval_reward"] > 0.9


def test_settings_out_of_range():
    with pytest.raises(UsageError, match="questions_per_step is 0"):
        ExpertIterationConfig(questions_per_step=0)
    with pytest.raises(UsageError, match="train_batch_size is 32, which gradient_accumulation_steps 3 does not divide"):
        ExpertIterationConfig(gradient_accumulation_steps=3)
