"""Confidence intervals of anything that is computed from runs, by the bootstrap (Efron 1979)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting.runs import Runs


@dataclass(frozen=True)
class Interval:
    """An interval of percentiles."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Bootstrap:
    """Statistics of resampled runs.

    Attributes:
        values: statistic -> its value in every resample that could be fitted.
        failed: resamples that could not (all of one size, say).
    """

    values: dict[str, np.ndarray]
    failed: int

    def interval(self, name: str, confidence: float = 0.9) -> Interval:
        """The percentile interval of a statistic; both ends are NaN if no resample could be fitted."""
        values = self.values.get(name, np.array([]))
        if not len(values):
            return Interval(float("nan"), float("nan"))
        low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(float(low), float(high))


def bootstrap(
    runs: Runs,
    statistics: Callable[[Runs], dict[str, float]],
    *,
    samples: int = 200,
    seed: int = 0,
    strata: Int[np.ndarray, " runs"] | None = None,
) -> Bootstrap:
    """Compute `statistics` on runs drawn with replacement, many times.

    Args:
        runs: what was measured.
        statistics: runs -> values by name; it may raise `UsageError` for runs it cannot be computed from.
        samples: how many times.
        seed: of the draws.
        strata: a group number for each run; each group keeps its size (isoFLOP profiles keep their budgets).
    """
    random = np.random.default_rng(seed)
    strata = np.zeros(len(runs), dtype=int) if strata is None else strata
    groups = [np.flatnonzero(strata == group) for group in np.unique(strata)]
    found, failed = [], 0
    for _ in range(samples):
        chosen = np.concatenate([random.choice(group, len(group)) for group in groups])
        try:
            found.append(statistics(runs.select(chosen)))
        except UsageError:
            failed += 1
    names = found[0] if found else []
    return Bootstrap({name: np.array([values[name] for values in found]) for name in names}, failed)
