"""From the rewards of several responses to each prompt to advantages.

With rewards r_1 … r_G of one group (one prompt), their mean m and their sample standard deviation s:

    baseline  normalizer   advantage
    mean      std          (r_i - m) / (s + eps)     GRPO: Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300,
                                                     section 4.1.2
    mean      none         r_i - m                   Dr. GRPO: Liu et al. 2025, "Understanding R1-Zero-Like Training",
                                                     arXiv:2503.20783, section 3.2
    mean      mean         (r_i - m) / (m + eps)     MaxRL: Tajwar et al. 2026, "Maximum Likelihood Reinforcement
                                                     Learning", arXiv:2602.02710
    none      none         r_i                       RFT: with rewards of 0 and 1, the likelihood of the correct
                                                     responses alone; with others REINFORCE (Williams 1992, eq. 4)
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from cs336_alignment.grading.reward import RewardFunction
from cs336_alignment.policy_gradient.rewards import compute_rollout_rewards
from cs336_basics.command_line import UsageError

Baseline = Literal["mean", "none"]
AdvantageNormalizer = Literal["std", "none", "mean"]
BASELINES = ("mean", "none")
ADVANTAGE_NORMALIZERS = ("std", "none", "mean")


def in_groups(raw_rewards: Float[Tensor, " rollouts"], group_size: int) -> Float[Tensor, "groups group_size"]:
    """A row for each prompt.

    Raises:
        UsageError: the rewards are not a vector of whole groups.
    """
    if raw_rewards.ndim != 1 or group_size < 1 or not len(raw_rewards) or len(raw_rewards) % group_size:
        raise UsageError(
            f"rewards of shape {tuple(raw_rewards.shape)} do not form groups of {group_size}; allowed is a vector "
            "whose length is a multiple of group_size"
        )
    return raw_rewards.view(-1, group_size)


def compute_group_normalized_rewards(
    raw_rewards: Float[Tensor, " rollouts"],
    group_size: int,
    baseline: Baseline = "mean",
    advantage_eps: float = 1e-6,
    advantage_normalizer: AdvantageNormalizer = "std",
) -> tuple[Float[Tensor, " rollouts"], dict[str, float]]:
    """Advantages within the groups of responses to one prompt, by the module's table.

    Args:
        raw_rewards: the responses to one prompt stand next to each other.
        group_size: responses per prompt.
        baseline: what is subtracted: the group's mean, or nothing.
        advantage_eps: added to the divisor.
        advantage_normalizer: the divisor: the group's sample standard deviation (with Bessel's correction), the mean
            of its rewards, or nothing.

    Returns:
        The advantages, and the metadata "advantage_mean", "advantage_std", "advantage_max", "advantage_min" and
        "informative_groups", the share of the groups whose rewards are not all the same.

    Raises:
        UsageError: the rewards are not whole groups, a choice is unknown, or the standard deviation is asked of groups
            of one.
    """
    groups = in_groups(raw_rewards, group_size)
    if not groups.is_floating_point():
        groups = groups.float()
    if baseline not in BASELINES:
        raise UsageError(f"baseline is {baseline!r}; allowed are {', '.join(BASELINES)}")
    if advantage_normalizer not in ADVANTAGE_NORMALIZERS:
        raise UsageError(
            f"advantage_normalizer is {advantage_normalizer!r}; allowed are {', '.join(ADVANTAGE_NORMALIZERS)}"
        )
    if advantage_normalizer == "std" and group_size == 1:
        raise UsageError("group_size is 1, and a standard deviation needs at least 2; use another advantage_normalizer")
    # Counted from the group's first reward, equal rewards are exactly 0; their own mean may differ from them in the
    # last digit, which the tiny divisor of such a group would blow up.
    shifted = groups - groups[:, :1]
    advantages = shifted - shifted.mean(dim=1, keepdim=True) if baseline == "mean" else groups
    if advantage_normalizer == "std":
        advantages = advantages / (shifted.std(dim=1, keepdim=True) + advantage_eps)
    elif advantage_normalizer == "mean":
        advantages = advantages / (groups.mean(dim=1, keepdim=True) + advantage_eps)
    advantages = advantages.reshape(-1)
    return advantages, {
        "advantage_mean": advantages.mean().item(),
        "advantage_std": advantages.std().item() if len(advantages) > 1 else 0.0,
        "advantage_max": advantages.max().item(),
        "advantage_min": advantages.min().item(),
        "informative_groups": informative_groups(raw_rewards, group_size).double().mean().item(),
    }


def score_and_normalize(
    reward_fn: RewardFunction,
    rollout_responses: Sequence[str],
    repeated_ground_truths: Sequence[str],
    group_size: int,
    advantage_eps: float,
    normalize_by_std: bool,
) -> tuple[Float[Tensor, " rollouts"], Float[Tensor, " rollouts"], dict[str, float]]:
    """`compute_rollout_rewards` and `compute_group_normalized_rewards` with the group's mean as the baseline.

    Returns:
        The advantages, the raw rewards, and the metadata of both.

    Raises:
        UsageError: as those two.
    """
    rewards, metadata = compute_rollout_rewards(reward_fn, rollout_responses, repeated_ground_truths)
    advantages, more = compute_group_normalized_rewards(
        rewards, group_size, "mean", advantage_eps, "std" if normalize_by_std else "none"
    )
    return advantages, rewards, metadata | more


def informative_groups(raw_rewards: Float[Tensor, " rollouts"], group_size: int) -> Bool[Tensor, " groups"]:
    """Which groups have rewards that are not all the same; the others' advantages are 0 under the mean as baseline.

    Dynamic sampling keeps these groups only, and samples until there are enough of them (Yu et al. 2025, "DAPO",
    arXiv:2503.14476, eq. 11).

    Raises:
        UsageError: the rewards are not whole groups.
    """
    groups = in_groups(raw_rewards, group_size)
    return (groups != groups[:, :1]).any(dim=1)


def overlong_penalty(lengths: Tensor, max_length: int, cache_length: int) -> Float[Tensor, " rollouts"]:
    """What to add to the reward of a long response: from 0 at `max_length - cache_length` tokens down to -1 at
    `max_length` and beyond (Yu et al. 2025, "DAPO", arXiv:2503.14476, eq. 13).

    Args:
        lengths: tokens of each response.
        max_length: tokens after which a response counts as cut off.
        cache_length: tokens before that in which the penalty grows.

    Raises:
        UsageError: `cache_length` is not in 1 … `max_length`.
    """
    if not 1 <= cache_length <= max_length:
        raise UsageError(f"cache_length is {cache_length}; allowed are whole numbers from 1 to max_length {max_length}")
    return (((max_length - cache_length) - lengths.float()) / cache_length).clamp(-1, 0)
