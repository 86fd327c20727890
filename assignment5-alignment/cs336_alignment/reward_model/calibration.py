"""Whether a reward model knows how sure it may be: confidence against accuracy, on pairs.

The difference d of two scores says that the first response is preferred with probability sigmoid(d). The model's answer
is the response with the higher score, its confidence in it sigmoid(|d|), at least one half. Well calibrated, answers of
confidence 80% are right in 80% of cases. The expected calibration error is the mean distance of the two over bins of
confidence, weighted by their sizes (Guo et al. 2017, arXiv:1706.04599, equation 3). Dividing all scores by one
temperature changes confidences, not answers; the best one makes the labels most likely (their section 4.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from cs336_basics.curves import VALIDATION_COLOR, figure_png, tidy

_TEMPERATURE_RANGE = (1e-3, 1e3)
_BISECTIONS = 100


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of about the same confidence.

    Attributes:
        low, high: the bin's bounds.
        pairs: how many fall into it.
        confidence: their mean confidence.
        accuracy: the share that was answered right.
    """

    low: float
    high: float
    pairs: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy of a reward model on pairs.

    Attributes:
        bins: those that are not empty.
        error: the expected calibration error.
        temperature: what to divide scores by to make the labels most likely; above 1, the model is too sure.
    """

    bins: tuple[ReliabilityBin, ...]
    error: float
    temperature: float


def calibrate(margins: Sequence[float], num_bins: int = 10) -> Calibration:
    """Compare confidence with accuracy.

    Args:
        margins: for each pair, the score of the preferred response less that of the other. A tie counts as half right.
        num_bins: bins of equal width between confidence 0.5 and 1.
    """
    margin = np.asarray(margins, dtype=np.float64)
    if margin.ndim != 1 or not len(margin) or not np.isfinite(margin).all():
        raise ValueError("calibration needs the margins of at least one pair, all finite")
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    right = np.where(margin == 0, 0.5, margin > 0)
    place = np.minimum(((confidence - 0.5) * 2 * num_bins).astype(int), num_bins - 1)
    bins = tuple(
        ReliabilityBin(
            low=0.5 + index / (2 * num_bins),
            high=0.5 + (index + 1) / (2 * num_bins),
            pairs=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(right[inside].mean()),
        )
        for index in range(num_bins)
        if (inside := place == index).any()
    )
    error = sum(part.pairs * abs(part.accuracy - part.confidence) for part in bins) / len(margin)
    return Calibration(bins, error, best_temperature(margin))


def best_temperature(margins: Float[np.ndarray, " pairs"]) -> float:
    """The temperature T that makes mean log sigmoid(margin / T) greatest, within 0.001 to 1,000.

    The objective is concave in 1/T, so bisection on its derivative, the mean of margin * sigmoid(-margin / T), finds
    the one maximum. Where every pair is right, ever colder is better, and the lower bound comes back.
    """

    def slope(inverse: float) -> float:
        return float(np.mean(margins / (1 + np.exp(np.clip(inverse * margins, -700, 700)))))

    coldest, hottest = _TEMPERATURE_RANGE
    low, high = np.log(1 / hottest), np.log(1 / coldest)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) > 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def plot_reliability(calibration: Calibration) -> bytes:
    """The reliability diagram as a PNG: accuracy against confidence, the area of a point shows its share of pairs."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    total = sum(part.pairs for part in calibration.bins)
    axes.plot([0.5, 1], [0.5, 1], color="#888888", linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.scatter(
        [part.confidence for part in calibration.bins],
        [part.accuracy for part in calibration.bins],
        s=[20 + 400 * part.pairs / total for part in calibration.bins],
        color=VALIDATION_COLOR,
        label="pairs of one bin",
    )
    axes.legend(frameon=False, loc="upper left")
    tidy(axes, "confidence", "accuracy")
    return figure_png(figure)
