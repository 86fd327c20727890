"""Reliability, expected calibration error and temperature, against counts by hand and scipy."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from cs336_alignment.reward_model.calibration import best_temperature, calibrate, plot_reliability


def _margins(true_temperature, num_pairs=4000, seed=0):
    """Pairs whose label follows sigmoid(difference / temperature), as a model with these differences would see them."""
    generator = np.random.default_rng(seed)
    difference = generator.normal(scale=2, size=num_pairs)
    first_preferred = generator.random(num_pairs) < 1 / (1 + np.exp(-difference / true_temperature))
    return np.where(first_preferred, difference, -difference)


def test_bins_are_those_of_a_count_pair_by_pair():
    margins = [*_margins(1.0, 200), 0.0, 50.0, -50.0]
    calibration = calibrate(margins, num_bins=5)
    confidence = [1 / (1 + np.exp(-abs(margin))) for margin in margins]
    right = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    error = 0.0
    for part in calibration.bins:
        inside = [
            index
            for index, value in enumerate(confidence)
            if part.low <= value < part.high or (part.high == 1 and value == 1)
        ]
        assert part.pairs == len(inside)
        assert part.confidence == pytest.approx(np.mean([confidence[index] for index in inside]))
        assert part.accuracy == pytest.approx(np.mean([right[index] for index in inside]))
        error += len(inside) / len(margins) * abs(part.accuracy - part.confidence)
    assert sum(part.pairs for part in calibration.bins) == len(margins)
    assert calibration.error == pytest.approx(error)


def test_a_calibrated_model_has_little_error_and_temperature_1():
    calibration = calibrate(_margins(1.0))
    assert calibration.error < 0.03
    assert calibration.temperature == pytest.approx(1, abs=0.1)


def test_a_model_that_is_too_sure_is_told_its_temperature():
    margins = _margins(3.0)
    calibration = calibrate(margins)
    assert calibration.error > 0.1
    assert calibration.temperature == pytest.approx(3, abs=0.4)
    assert calibrate(margins / calibration.temperature).error < 0.03


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 4.0])
def test_temperature_makes_the_labels_most_likely(true_temperature):
    margins = _margins(true_temperature, 500)
    found = minimize_scalar(
        lambda logarithm: np.logaddexp(0, -margins / np.exp(logarithm)).mean(),
        bounds=(-5, 5),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert best_temperature(margins) == pytest.approx(np.exp(found.x), rel=1e-4)


def test_temperature_stays_within_bounds():
    assert best_temperature(np.array([0.5, 2.0])) == pytest.approx(1e-3)
    assert best_temperature(np.array([-0.5, -2.0])) == pytest.approx(1e3)


@pytest.mark.parametrize("margins", [[], [np.nan, 1.0], [np.inf]])
def test_margins_without_a_meaning_are_refused(margins):
    with pytest.raises(ValueError, match="finite"):
        calibrate(margins)


def test_plot_is_a_png():
    assert plot_reliability(calibrate([1.0, -0.5, 3.0])).startswith(b"\x89PNG")
