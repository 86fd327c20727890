"""Rewards of rollouts."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cs336_alignment.grading.reward import RewardFunction
from cs336_basics.command_line import UsageError


def compute_rollout_rewards(
    reward_fn: RewardFunction, rollout_responses: Sequence[str], repeated_ground_truths: Sequence[str]
) -> tuple[Float[Tensor, " rollouts"], dict[str, float]]:
    """The reward of each response, and statistics of the batch.

    Args:
        reward_fn: its "reward" counts; its other keys are only averaged.
        rollout_responses: one per rollout.
        repeated_ground_truths: the true answer to the prompt of each rollout.

    Returns:
        The rewards in fp32, and the metadata "reward_mean", "reward_std" (0 for a single rollout), "reward_max",
        "reward_min", and the mean of each other key that the reward function gives for every response:
        "format_reward_mean" and "answer_reward_mean".

    Raises:
        UsageError: there are no responses, or not as many ground truths.
    """
    if len(rollout_responses) != len(repeated_ground_truths) or not rollout_responses:
        raise UsageError(
            f"got {len(rollout_responses)} responses and {len(repeated_ground_truths)} ground truths; allowed is the "
            "same number, at least 1"
        )
    scores = [
        reward_fn(response, truth) for response, truth in zip(rollout_responses, repeated_ground_truths, strict=True)
    ]
    rewards = torch.tensor([float(score["reward"]) for score in scores], dtype=torch.float32)
    shared = set.intersection(*(set(score) for score in scores)) - {"reward"}
    metadata = reward_statistics(rewards)
    for key in sorted(shared):
        metadata[f"{key}_mean"] = sum(float(score[key]) for score in scores) / len(scores)
    return rewards, metadata


def reward_statistics(rewards: Float[Tensor, " rollouts"]) -> dict[str, float]:
    """ "reward_mean", "reward_std" (0 for a single rollout), "reward_max" and "reward_min"."""
    return {
        "reward_mean": rewards.mean().item(),
        "reward_std": rewards.std().item() if len(rewards) > 1 else 0.0,
        "reward_max": rewards.max().item(),
        "reward_min": rewards.min().item(),
    }
