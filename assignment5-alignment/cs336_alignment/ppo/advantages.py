"""Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

A response is an episode: its tokens are the actions, its last one ends it. With rewards r_t, values V_t before the
action t, and V = 0 after the last action:

    delta_t = r_t + gamma V_{t+1} - V_t
    A_t     = sum_l (gamma lambda)^l delta_{t+l}  =  delta_t + gamma lambda A_{t+1}
    R_t     = A_t + V_t                                  what the value function is to predict

Responses that were cut off at the greatest length count as ended: the reward comes with the last token either way.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cs336_alignment.masked import masked_mean


def generalized_advantages(
    rewards: Float[Tensor, "batch tokens"],
    values: Float[Tensor, "batch tokens"],
    mask: Bool[Tensor, "batch tokens"],
    gamma: float,
    lam: float,
) -> tuple[Float[Tensor, "batch tokens"], Float[Tensor, "batch tokens"]]:
    """Advantages and returns of the response tokens.

    Args:
        rewards: for each token.
        values: the prediction before each token.
        mask: marks the response tokens, which stand together in each row.
        gamma: discount of later rewards, in [0, 1].
        lam: lambda, in [0, 1]; 0 takes one step and trusts the values, 1 takes the rewards as they came.

    Returns:
        (advantages, returns), 0 outside the responses.
    """
    weight = mask.to(values.dtype)
    rewards, values = rewards * weight, values * weight
    advantages = torch.zeros_like(values)
    next_advantage = next_value = torch.zeros_like(values[:, 0])
    for token in reversed(range(values.shape[1])):
        delta = rewards[:, token] + gamma * next_value - values[:, token]
        next_advantage = (delta + gamma * lam * next_advantage) * weight[:, token]
        next_value = values[:, token]
        advantages[:, token] = next_advantage
    return advantages, advantages + values


def whiten(
    values: Float[Tensor, "batch tokens"], mask: Bool[Tensor, "batch tokens"], epsilon: float = 1e-8
) -> Float[Tensor, "batch tokens"]:
    """Shift and scale the marked entries to mean 0 and standard deviation 1; the others become 0."""
    mean = masked_mean(values, mask)
    variance = masked_mean(torch.square(values - mean), mask)
    return (values - mean) / torch.sqrt(variance + epsilon) * mask


def explained_variance(
    values: Float[Tensor, "batch tokens"], returns: Float[Tensor, "batch tokens"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, ""]:
    """How much of the returns' variance the values foresaw: 1 is all, 0 as much as a constant, NaN if all are alike."""
    variance = returns[mask].var(correction=0)
    unexplained = (returns - values)[mask].var(correction=0) / variance
    return torch.where(variance > 0, 1 - unexplained, torch.nan)
