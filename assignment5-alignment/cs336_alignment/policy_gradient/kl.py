"""Estimates of KL(policy || reference) from the log-probabilities of tokens that the policy sampled.

With d = log policy - log reference (Schulman 2020, "Approximating KL Divergence",
http://joschu.net/blog/kl-approx.html):

    k1 = d                    unbiased; can be negative, varies much
    k2 = d² / 2               biased, varies little
    k3 = exp(-d) - 1 + d      unbiased, never negative; the one of GRPO (Shao et al. 2024, arXiv:2402.03300, eq. 4)

What is unbiased as a number need not be so as a loss. Differentiated at given tokens, the expected gradient is

    k1: 0, for it is that of E[log policy];
    k2: the gradient of KL(policy || reference);
    k3: the gradient of the other direction, KL(reference || policy)

(Tang & Munos 2025, "On a few pitfalls in KL divergence gradient estimation for RL", arXiv:2506.09477). So k1 belongs
into a reward, where it is a number, and k2 and k3 may stand in a loss.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cs336_basics.command_line import UsageError

KLEstimator = Literal["k1", "k2", "k3"]
KL_ESTIMATORS = ("k1", "k2", "k3")


def estimate_kl(
    policy_log_probs: Float[Tensor, "..."], reference_log_probs: Float[Tensor, "..."], estimator: KLEstimator = "k3"
) -> Float[Tensor, "..."]:
    """An estimate at each token, in nats, by the module's formulas; the reference is a constant.

    Raises:
        UsageError: the estimator is unknown, or the shapes differ.
    """
    if policy_log_probs.shape != reference_log_probs.shape:
        raise UsageError(
            f"reference_log_probs {tuple(reference_log_probs.shape)} do not have the shape of policy_log_probs "
            f"{tuple(policy_log_probs.shape)}"
        )
    difference = policy_log_probs - reference_log_probs.detach()
    match estimator:
        case "k1":
            return difference
        case "k2":
            return difference.square() / 2
        case "k3":
            return torch.expm1(-difference) + difference
    raise UsageError(f"the KL estimator is {estimator!r}; allowed are {', '.join(KL_ESTIMATORS)}")
