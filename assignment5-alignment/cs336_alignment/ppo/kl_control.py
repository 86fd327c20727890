"""A controller that keeps the policy at a given distance from its reference."""

_GREATEST_ERROR = 0.2
_GAIN = 0.1


def adapted_coefficient(coefficient: float, kl: float, target: float) -> float:
    """The next coefficient of the KL penalty: larger when the KL divergence lies above the target, else smaller.

        e = clip(KL / target - 1, -0.2, 0.2);   b <- b (1 + 0.1 e)

    As in Ziegler et al. 2019, arXiv:1909.08593, section 2.2.

    Args:
        coefficient: b, which the last rollouts were penalized with.
        kl: their divergence from the reference, nats per response.
        target: what it should be, above 0.
    """
    error = min(max(kl / target - 1, -_GREATEST_ERROR), _GREATEST_ERROR)
    return coefficient * (1 + _GAIN * error)
