"""The value loss of PPO, and the rewards of tokens that tie the policy to a reference.

The policy's own loss is the clipped one of Schulman et al. 2017 (arXiv:1707.06347, equation 7), the same that GRPO
takes: `policy_gradient.losses` has it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def clipped_value_loss(
    values: Float[Tensor, "batch tokens"],
    old_values: Float[Tensor, "batch tokens"],
    returns: Float[Tensor, "batch tokens"],
    cliprange: float,
) -> Float[Tensor, "batch tokens"]:
    """Half the squared error of each value, taken pessimistically when it has moved far from the old value.

        max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2

    As in the baselines that accompany PPO (described in Engstrom et al. 2020, arXiv:2005.12729, section 3).

    Args:
        values: predictions, with gradients.
        old_values: those at the time of the rollouts.
        returns: what they should have been.
        cliprange: c, above 0; infinite for no clipping.
    """
    clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
    return 0.5 * torch.maximum(torch.square(values - returns), torch.square(clipped - returns))


def token_rewards(
    scores: Float[Tensor, " batch"],
    log_probs: Float[Tensor, "batch tokens"],
    reference_log_probs: Float[Tensor, "batch tokens"],
    mask: Bool[Tensor, "batch tokens"],
    kl_coefficient: float,
) -> Float[Tensor, "batch tokens"]:
    """The reward of each response token: a penalty for leaving the reference, and at the last one the score.

        r_t = -b (log p(a_t) - log r(a_t)) + [t is last] score      Ziegler et al. 2019, arXiv:1909.08593, equation 2

    Args:
        scores: of whole responses.
        log_probs, reference_log_probs: of the tokens, under the policy that made them and under the reference.
        mask: marks the response tokens, which stand together in each row, at least one in each.
        kl_coefficient: b, at least 0.
    """
    rewards = -kl_coefficient * (log_probs - reference_log_probs) * mask
    places = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, places, -1).amax(dim=1)
    rewards[torch.arange(len(scores), device=mask.device), last] += scores.to(rewards.dtype)
    return rewards
