"""Rewards of a reward model in every program that trains on its own rollouts."""

import pytest
import torch

from cs336_alignment.expert_iteration import train as expert_iteration
from cs336_alignment.expert_iteration.config import ExpertIterationConfig
from cs336_alignment.grpo import train as grpo
from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.policy import load_policy
from cs336_alignment.policy_gradient.advantages import compute_group_normalized_rewards
from cs336_alignment.ppo import train as ppo
from cs336_alignment.ppo.config import PPOConfig
from cs336_alignment.reward_model.model import RewardModel, load_reward_model, save_reward_model
from cs336_alignment.reward_model.score import score_responses
from cs336_basics.command_line import UsageError

from .online_cases import make_tokenizer, save_model_and_questions, take_steps

SIZES = {"group_size": 4, "max_tokens": 5, "stop": "", "device": "cpu", "eval_examples": 4}


@pytest.fixture
def files(tmp_path):
    found = save_model_and_questions(tmp_path)
    torch.manual_seed(3)
    model = RewardModel(load_policy(found["model"], "cpu").base_model)
    return found | {"reward_model": str(save_reward_model(model, make_tokenizer(), tmp_path / "reward_model"))}


@pytest.mark.parametrize(
    ("program", "config_class", "sizes"),
    [
        (grpo, GRPOConfig, {"rollout_batch_size": 16, "train_batch_size": 16}),
        (ppo, PPOConfig, {"rollout_batch_size": 16, "train_batch_size": 16}),
        (expert_iteration, ExpertIterationConfig, {"questions_per_step": 4, "train_batch_size": 4}),
    ],
)
def test_training_rewards_are_its_scores_and_evaluations_keep_the_grader(files, program, config_class, sizes):
    trainer = program.make_trainer(config_class(**files, **SIZES, **sizes))
    (metrics,), (rollouts,) = take_steps(trainer, 1)
    model = load_reward_model(files["reward_model"], "cpu")
    prompts, responses = [r.prompt for r in rollouts], [r.response for r in rollouts]
    scores = score_responses(model, make_tokenizer(), prompts, responses)
    assert len(set(scores)) > 4
    assert [rollout.reward for rollout in rollouts] == pytest.approx(scores, rel=1e-5, abs=1e-6)
    assert metrics["reward"] == pytest.approx(sum(scores) / 16, rel=1e-5, abs=1e-6)
    assert {rollout.answer_reward for rollout in rollouts} <= {0.0, 1.0}
    assert trainer.evaluate()["eval_reward"] in (0.0, 0.25, 0.5, 0.75, 1.0)


def test_grpo_learns_from_the_scores(files):
    trainer = grpo.make_trainer(GRPOConfig(**files, **SIZES, rollout_batch_size=8, train_batch_size=8))
    recorded = {}
    trainer.record = lambda rollouts, **columns: recorded.update(rollouts=rollouts, **columns)
    trainer.train_step()
    rewards = torch.tensor([rollout.reward for rollout in recorded["rollouts"]])
    expected, _ = compute_group_normalized_rewards(rewards, 4, "mean", 1e-6, "std")
    torch.testing.assert_close(torch.tensor(recorded["advantage"]), expected, rtol=1e-5, atol=1e-6)
    assert expected.abs().max() > 0.5


def test_expert_iteration_keeps_what_scores_well(files):
    given = {**files, **SIZES, "questions_per_step": 4, "train_batch_size": 4, "keep_duplicates": True}
    first = expert_iteration.make_trainer(ExpertIterationConfig(**given, least_reward=-100.0))
    _, (rollouts,) = take_steps(first, 1)
    middle = sorted(rollout.reward for rollout in rollouts)[8]
    half = expert_iteration.make_trainer(ExpertIterationConfig(**given, least_reward=middle))
    recorded = {}
    half.record = lambda rollouts, **columns: recorded.update(columns)
    half.train_step()
    assert recorded["kept"] == [rollout.reward >= middle for rollout in rollouts]
    assert 1 <= sum(recorded["kept"]) < 16


def test_what_is_no_reward_model_is_refused(files):
    with pytest.raises(UsageError, match="holds a Qwen2ForCausalLM"):
        grpo.make_trainer(GRPOConfig(**{**files, "reward_model": files["model"]}, **SIZES))
