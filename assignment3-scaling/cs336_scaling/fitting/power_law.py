"""Power laws: y = a·x^b by least squares in log space, and y = E + a·x^(−b), which levels off at E."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from cs336_basics.command_line import UsageError

Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient · x^exponent."""

    coefficient: float
    exponent: float

    def __call__(self, x: Number) -> Number:
        """The law's value at x."""
        return self.coefficient * x**self.exponent


@dataclass(frozen=True)
class SaturatingPowerLaw:
    """y = floor + coefficient · x^(−exponent)."""

    floor: float
    coefficient: float
    exponent: float

    def __call__(self, x: Number) -> Number:
        """The law's value at x."""
        return self.floor + self.coefficient * x**-self.exponent


def _positive_columns(x: ArrayLike, y: ArrayLike, least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(np.unique(x)) < least:
        raise UsageError(f"a power law was asked of {len(np.unique(x))} different x; at least {least} are needed")
    if not (np.all(np.isfinite(x) & (x > 0)) and np.all(np.isfinite(y) & (y > 0))):
        raise UsageError("a power law is fitted to finite numbers above 0 only")
    return x, y


def fit_power_law(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    weights: Float[np.ndarray, " points"] | None = None,
) -> PowerLaw:
    """The line through (log x, log y) with the least sum of squares, weighted if asked (weights multiply squares).

    Raises:
        UsageError: fewer than two different x, or a number that is not above 0.
    """
    x, y = _positive_columns(x, y, least=2)
    weights = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    log_x, log_y = np.log(x), np.log(y)
    mean_x, mean_y = np.average(log_x, weights=weights), np.average(log_y, weights=weights)
    exponent = (weights @ ((log_x - mean_x) * (log_y - mean_y))) / (weights @ (log_x - mean_x) ** 2)
    return PowerLaw(float(np.exp(mean_y - exponent * mean_x)), float(exponent))


def fit_saturating_power_law(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], exponents: tuple[float, float] = (0.01, 2.0)
) -> SaturatingPowerLaw:
    """Least squares of y, with floor ≥ 0 and coefficient ≥ 0.

    For a given exponent the other two enter linearly and have a closed form (variable projection), so the search has
    one dimension: a grid over the logarithm of the exponent, then a bounded search around its best point.

    Args:
        x: where y was measured.
        y: what was measured.
        exponents: the lowest and the highest exponent tried.

    Raises:
        UsageError: fewer than three different x, or a number that is not above 0.
    """
    x, y = _positive_columns(x, y, least=3)
    scale = np.exp(np.mean(np.log(x)))  # powers of x / scale are of the order of 1

    def best_line(log_exponent: float) -> tuple[float, float, float]:
        powers = (x / scale) ** -np.exp(log_exponent)
        centered = powers - powers.mean()
        slope = max(0.0, float(centered @ y / (centered @ centered)))
        floor = float(y.mean() - slope * powers.mean())
        if floor < 0:
            floor, slope = 0.0, float(powers @ y / (powers @ powers))
        return floor, slope, float(np.sum((floor + slope * powers - y) ** 2))

    grid = np.linspace(*np.log(exponents), 60)
    best = int(np.argmin([best_line(log_exponent)[2] for log_exponent in grid]))
    around = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    search = minimize_scalar(lambda t: best_line(t)[2], bounds=around, method="bounded", options={"xatol": 1e-9})
    floor, slope, _ = best_line(search.x)
    exponent = float(np.exp(search.x))
    return SaturatingPowerLaw(floor, float(slope * scale**exponent), exponent)
