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

Multiplied by the ratio exp(log policy - log old) to the policy that sampled, k1 and k3 are unbiased when that one is
another, and since the expectation is then over the old policy, which does not move, so is their gradient: that of
KL(policy || reference) (DeepSeek-AI 2025, "DeepSeek-V3.2", arXiv:2512.02556, section 3.1).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cs336_basics.command_line import UsageError

KLEstimator = Literal["k1", "k2", "k3"]
KL_ESTIMATORS = ("k1", "k2", "k3")


def estimate_kl(
    policy_log_probs: Float[Tensor, "..."],
    reference_log_probs: Float[Tensor, "..."],
    estimator: KLEstimator = "k3",
    old_log_probs: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    """An estimate at each token, in nats, by the module's formulas.

    Args:
        policy_log_probs: of the sampled tokens; what is differentiated.
        reference_log_probs: a constant.
        old_log_probs: under the policy that sampled, a constant: multiply by the ratio to it; None does not.

    Raises:
        UsageError: the estimator is unknown, or the shapes differ.
    """
    for name, log_probs in (("reference_log_probs", reference_log_probs), ("old_log_probs", old_log_probs)):
        if log_probs is not None and log_probs.shape != policy_log_probs.shape:
            raise UsageError(
                f"{name} {tuple(log_probs.shape)} do not have the shape of policy_log_probs "
                f"{tuple(policy_log_probs.shape)}"
            )
    difference = policy_log_probs - reference_log_probs.detach()
    match estimator:
        case "k1":
            estimate = difference
        case "k2":
            estimate = difference.square() / 2
        case "k3":
            estimate = torch.expm1(-difference) + difference
        case _:
            raise UsageError(f"the KL estimator is {estimator!r}; allowed are {', '.join(KL_ESTIMATORS)}")
    return estimate if old_log_probs is None else (policy_log_probs - old_log_probs.detach()).exp() * estimate
