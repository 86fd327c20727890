"""How sure a measured share is: a confidence interval from counts."""

from math import sqrt
from typing import NamedTuple

_Z = 1.959963984540054  # 97.5 % of the standard normal distribution lie below


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def wilson_interval(successes: int, trials: int) -> Interval | None:
    """95 % confidence interval of a share, None for no trial (the score interval of Wilson 1927)."""
    if not trials:
        return None
    share = successes / trials
    center = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    # Rounding must not push an end past the share itself.
    return Interval(min(max(center - half, 0.0), share), max(min(center + half, 1.0), share))
