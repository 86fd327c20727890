"""The learning-rate schedule at its corners, against an independent formula, and its shape."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.optimizer import get_cosine_lr
from cs336_basics.trainer import utils


@pytest.mark.parametrize(
    ("it", "expected"),
    [
        (0, 0.0),
        (1, 0.1),
        (7, 0.7),
        (10, 1.0),
        (20, 0.55),
        (15, 0.1 + 0.45 * (1 + math.sqrt(0.5))),
        (30, 0.1),
        (99, 0.1),
    ],
)
def test_corners(it, expected):
    assert get_cosine_lr(it, 1.0, 0.1, 10, 30) == pytest.approx(expected, rel=1e-12)


def test_equals_the_half_angle_form():
    for it in range(5, 50):
        expected = 0.2 + (3.0 - 0.2) * math.cos(math.pi / 2 * (it - 5) / 45) ** 2
        assert get_cosine_lr(it, 3.0, 0.2, 5, 50) == pytest.approx(expected, rel=1e-12)


def test_no_warm_up_starts_at_the_maximum():
    assert get_cosine_lr(0, 2.0, 1.0, 0, 10) == 2.0


def test_warm_up_as_long_as_the_cycle_drops_to_the_floor():
    assert get_cosine_lr(9, 2.0, 1.0, 10, 10) == pytest.approx(1.8)
    assert get_cosine_lr(10, 2.0, 1.0, 10, 10) == 1.0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(warmup=st.integers(0, 50), length=st.integers(1, 200), peak=st.floats(1e-6, 10), floor=st.floats(0, 1))
def test_rises_then_falls_within_its_bounds(warmup, length, peak, floor):
    floor *= peak
    rates = [get_cosine_lr(it, peak, floor, warmup, warmup + length) for it in range(warmup + length + 5)]
    up, down = rates[: warmup + 1], rates[warmup:]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert max(rates) == pytest.approx(peak)
    assert rates[-5:] == [floor] * 5


def test_one_import_has_the_three_of_them():
    assert utils.get_cosine_lr is get_cosine_lr
    assert {"cross_entropy", "clip_gradient", "get_cosine_lr"} == set(utils.__all__)
