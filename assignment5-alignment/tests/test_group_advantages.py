"""Rewards and advantages against plain Python's statistics."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.policy_gradient.advantages import (
    ADVANTAGE_NORMALIZERS,
    BASELINES,
    compute_group_normalized_rewards,
    informative_groups,
    overlong_penalty,
    score_and_normalize,
)
from cs336_alignment.policy_gradient.rewards import compute_rollout_rewards
from cs336_basics.command_line import UsageError

EPS = 1e-6


def expected_advantages(rewards, group_size, baseline, normalizer):
    """One group after the other, in Python's floats."""
    advantages = []
    for start in range(0, len(rewards), group_size):
        group = rewards[start : start + group_size]
        mean = statistics.fmean(group)
        divisor = {
            "std": lambda group=group: statistics.stdev(group) + EPS,
            "mean": lambda mean=mean: mean + EPS,
            "none": lambda: 1.0,
        }[normalizer]()
        advantages += [(reward - (mean if baseline == "mean" else 0)) / divisor for reward in group]
    return advantages


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("normalizer", ADVANTAGE_NORMALIZERS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), group_size=st.integers(2, 5), groups=st.integers(1, 4))
def test_equal_python_statistics(baseline, normalizer, data, group_size, groups):
    reward = st.sampled_from([0.0, 1.0, 0.1, 0.7]) | st.floats(0, 10, allow_subnormal=False)
    rewards = data.draw(st.lists(reward, min_size=group_size * groups, max_size=group_size * groups))
    given_rewards = torch.tensor(rewards, dtype=torch.float64)
    advantages, metadata = compute_group_normalized_rewards(given_rewards, group_size, baseline, EPS, normalizer)
    expected = expected_advantages(rewards, group_size, baseline, normalizer)
    # A divisor near eps turns the inputs' last digit into this much.
    tolerance = 1e-16 * 10 / EPS if normalizer == "std" else 1e-9
    assert advantages.tolist() == pytest.approx(expected, rel=1e-9, abs=tolerance)
    assert metadata["advantage_mean"] == pytest.approx(statistics.fmean(expected), rel=1e-6, abs=1e-6)
    assert metadata["advantage_max"] == pytest.approx(max(expected), rel=1e-9, abs=tolerance)
    assert metadata["advantage_min"] == pytest.approx(min(expected), rel=1e-9, abs=tolerance)


def test_the_named_algorithms_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    std = math.sqrt(4 * 0.25 / 3), math.sqrt((3 * 0.0625 + 0.5625) / 3)
    by_hand = {
        ("mean", "std"): [0.5 / std[0], -0.5 / std[0], -0.5 / std[0], 0.5 / std[0]]
        + [0.25 / std[1]] * 3
        + [-0.75 / std[1]],
        ("mean", "none"): [0.5, -0.5, -0.5, 0.5, 0.25, 0.25, 0.25, -0.75],
        ("mean", "mean"): [1, -1, -1, 1, 1 / 3, 1 / 3, 1 / 3, -1],
        ("none", "none"): rewards.tolist(),
    }
    for (baseline, normalizer), expected in by_hand.items():
        advantages, _ = compute_group_normalized_rewards(rewards, 4, baseline, EPS, normalizer)
        assert advantages.tolist() == pytest.approx(expected, abs=1e-5)
        assert advantages.shape == (8,)


@pytest.mark.parametrize("reward", [0.1, 0.7, 1 / 3, 1e6])
def test_equal_rewards_have_the_advantage_0_exactly(reward):
    for normalizer in ADVANTAGE_NORMALIZERS:
        advantages, metadata = compute_group_normalized_rewards(torch.full((7,), reward), 7, "mean", EPS, normalizer)
        assert advantages.tolist() == [0] * 7
        assert metadata["informative_groups"] == 0


def test_whole_numbers_are_rewards_too_and_a_group_of_one_has_its_own_mean():
    advantages, _ = compute_group_normalized_rewards(torch.tensor([1, 0]), 2, advantage_normalizer="none")
    assert advantages.tolist() == [0.5, -0.5]
    advantages, _ = compute_group_normalized_rewards(torch.tensor([3.0, 4.0]), 1, "none", EPS, "none")
    assert advantages.tolist() == [3, 4]


def reward_of_length(response, truth):
    return {"reward": len(response) / 10, "format_reward": float("<" in response), "answer_reward": float(truth == "1")}


def test_rewards_and_their_statistics():
    rewards, metadata = compute_rollout_rewards(reward_of_length, ["a", "<bc", "dddd"], ["1", "2", "1"])
    assert rewards.dtype == torch.float32
    assert rewards.tolist() == pytest.approx([0.1, 0.3, 0.4])
    assert metadata == pytest.approx(
        {
            "reward_mean": 0.8 / 3,
            "reward_std": statistics.stdev([0.1, 0.3, 0.4]),
            "reward_max": 0.4,
            "reward_min": 0.1,
            "format_reward_mean": 1 / 3,
            "answer_reward_mean": 2 / 3,
        }
    )
    _, single = compute_rollout_rewards(lambda response, truth: {"reward": 2}, ["a"], ["b"])
    assert single == {"reward_mean": 2, "reward_std": 0, "reward_max": 2, "reward_min": 2}


def test_responses_to_advantages_in_one():
    arguments = (reward_of_length, ["a", "bb", "<ccc", "d"], ["1"] * 4, 2, EPS)
    advantages, rewards, metadata = score_and_normalize(*arguments, normalize_by_std=True)
    assert rewards.tolist() == pytest.approx([0.1, 0.2, 0.4, 0.1])
    assert advantages.tolist() == pytest.approx(expected_advantages(rewards.tolist(), 2, "mean", "std"), rel=1e-4)
    assert metadata["format_reward_mean"] == 0.25
    centered, _, _ = score_and_normalize(*arguments, normalize_by_std=False)
    assert centered.tolist() == pytest.approx([-0.05, 0.05, 0.15, -0.15], abs=1e-7)


def test_dynamic_sampling_keeps_groups_whose_rewards_differ():
    rewards = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    assert informative_groups(rewards, 2).tolist() == [False, True, False]
    _, metadata = compute_group_normalized_rewards(rewards, 2)
    assert metadata["informative_groups"] == pytest.approx(1 / 3)


def test_overlong_penalty_falls_over_the_last_tokens():
    lengths = torch.tensor([1, 80, 85, 90, 100, 150])
    assert overlong_penalty(lengths, 100, 20).tolist() == pytest.approx([0, 0, -0.25, -0.5, -1, -1])
    with pytest.raises(UsageError, match="cache_length is 0"):
        overlong_penalty(lengths, 100, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(5), 2), r"shape \(5,\) do not form groups of 2"),
        ((torch.zeros(0), 2), r"shape \(0,\) do not form groups of 2"),
        ((torch.zeros(4), 0), "groups of 0"),
        ((torch.zeros(2, 2), 2), r"shape \(2, 2\)"),
        ((torch.zeros(4), 2, "median"), "baseline is 'median'; allowed are mean, none"),
        ((torch.zeros(4), 2, "mean", EPS, "max"), "advantage_normalizer is 'max'; allowed are std, none, mean"),
        ((torch.zeros(4), 1), "group_size is 1"),
    ],
)
def test_refuses_what_has_no_meaning(arguments, message):
    with pytest.raises(UsageError, match=message):
        compute_group_normalized_rewards(*arguments)


def test_refuses_responses_without_truths():
    with pytest.raises(UsageError, match="got 2 responses and 1 ground truths"):
        compute_rollout_rewards(reward_of_length, ["a", "b"], ["1"])
    with pytest.raises(UsageError, match="got 0 responses"):
        compute_rollout_rewards(reward_of_length, [], [])
