"""Wilson's interval against the test that it inverts."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.confidence import wilson_interval


@given(st.integers(1, 5000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_wilson_interval_inverts_the_score_test(case):
    """Its ends are the shares that lie 1.96 of their own standard errors from the observed one."""
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    observed, z = successes / trials, NormalDist().inv_cdf(0.975)
    assert 0 <= low <= observed <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            error = math.sqrt(end * (1 - end) / trials)
            assert abs(observed - end) == pytest.approx(z * error, abs=1e-9)


def test_no_trial_no_interval():
    assert wilson_interval(0, 0) is None
