"""Power laws and isoFLOP fits against numpy.polyfit, scipy's curve_fit and known laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting.chinchilla import PUBLISHED
from cs336_scaling.fitting.example_runs import BUDGETS, example_runs
from cs336_scaling.fitting.iso_flops import fit_isoflops, quadratic_minimum
from cs336_scaling.fitting.power_law import fit_power_law, fit_saturating_power_law
from cs336_scaling.fitting.runs import Runs, read_runs


def test_power_law_is_the_line_of_polyfit_in_log_space():
    random = np.random.default_rng(0)
    x, y = random.uniform(1, 1e6, 30), random.uniform(1, 1e3, 30)
    weights = random.uniform(0.1, 2, 30)
    for law, options in ((fit_power_law(x, y), {}), (fit_power_law(x, y, weights), {"w": np.sqrt(weights)})):
        slope, intercept = np.polyfit(np.log(x), np.log(y), 1, **options)
        assert law.exponent == pytest.approx(slope, rel=1e-9)
        assert law.coefficient == pytest.approx(np.exp(intercept), rel=1e-8)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.floats(1e-6, 1e6), st.floats(-2, 2), st.floats(1, 1e20))
def test_power_law_recovers_its_coefficients(coefficient, exponent, start):
    x = start * np.array([1.0, 3.0, 10.0, 30.0])
    law = fit_power_law(x, coefficient * x**exponent)
    assert law.exponent == pytest.approx(exponent, abs=1e-8)
    np.testing.assert_allclose(law(x), coefficient * x**exponent, rtol=1e-7)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.floats(0.1, 5), st.floats(0.1, 10), st.floats(0.05, 0.8), st.floats(1, 1e18))
def test_saturating_power_law_recovers_its_coefficients(floor, size, exponent, start):
    x = start * np.geomspace(1, 1e4, 9)
    law = fit_saturating_power_law(x, floor + size * (x / start) ** -exponent)
    assert law.exponent == pytest.approx(exponent, rel=1e-3)
    assert law.floor == pytest.approx(floor, abs=1e-2 * size)
    np.testing.assert_allclose(law(x), floor + size * (x / start) ** -exponent, rtol=1e-4)


def test_saturating_power_law_is_scipys_least_squares():
    random = np.random.default_rng(1)
    x = np.geomspace(1, 1e3, 12)
    y = 2 + 3 * x**-0.4 + 0.02 * random.standard_normal(12)
    law = fit_saturating_power_law(x, y)
    reference, _ = curve_fit(lambda x, floor, size, exponent: floor + size * x**-exponent, x, y, p0=[1, 1, 0.5])
    np.testing.assert_allclose([law.floor, law.coefficient, law.exponent], reference, rtol=1e-4)


def test_saturating_power_law_has_no_floor_below_zero():
    x = np.geomspace(1, 100, 6)
    law = fit_saturating_power_law(x, np.log(200 / x))  # falls faster than any power: the best floor would be negative
    assert law.floor == 0.0
    assert law.coefficient > 0


def test_parabolas_give_their_minimum_back():
    budgets = np.array([1e18, 1e19, 1e20])
    best = 2e-2 * budgets**0.47
    n = (best[:, None] * np.geomspace(0.2, 6, 7)).ravel()
    flops = np.repeat(budgets, 7)
    loss = 3 + 0.05 * np.log(n / np.repeat(best, 7)) ** 2
    fit = fit_isoflops(Runs.of(loss, n, flops=flops), "quadratic")
    assert fit.parameters_law.exponent == pytest.approx(0.47, abs=1e-9)
    assert fit.tokens_law.exponent == pytest.approx(0.53, abs=1e-9)
    for optimum, n_opt, budget in zip(fit.optima, best, budgets, strict=True):
        assert optimum.parameters == pytest.approx(n_opt)
        assert optimum.tokens == pytest.approx(budget / (6 * n_opt))
        assert optimum.loss == pytest.approx(3)
        assert optimum.curvature == pytest.approx(0.1)
        assert optimum.inside


def test_the_lowest_run_is_the_lowest_run():
    runs = example_runs()
    fit = fit_isoflops(runs, "lowest")
    for optimum, budget in zip(fit.optima, BUDGETS, strict=True):
        of_budget = [
            (loss, n) for loss, n, c in zip(runs.loss, runs.parameters, runs.flops, strict=True) if c == budget
        ]
        assert (optimum.loss, optimum.parameters) == min(of_budget)


@pytest.mark.parametrize(("method", "tolerance"), [("lowest", 0.05), ("quadratic", 0.01)])
def test_methods_find_the_true_exponents_of_the_example(method, tolerance):
    fit = fit_isoflops(example_runs(noise=0.0), method)
    assert fit.exponents == pytest.approx(PUBLISHED.exponents, abs=tolerance)
    assert fit.optimal_loss(1e21) == pytest.approx(PUBLISHED.optimal_loss(1e21), rel=0.01)


def test_a_half_width_keeps_the_sizes_near_the_minimum():
    n = np.geomspace(1e6, 1e9, 13)
    u = np.log(n / 3e7)
    runs = Runs.of(3 + 0.05 * u**2 + 0.01 * u**3 + 0.005 * u**4, n, flops=np.full(13, 1e18))
    assert abs(np.log(quadratic_minimum(runs, half_width=3).parameters / 3e7)) < 0.2
    assert abs(np.log(quadratic_minimum(runs).parameters / 3e7)) > 0.3


def test_budgets_without_a_minimum_are_left_out():
    good = example_runs(noise=0.0)
    bump = Runs.of([3.0, 4.0, 3.0], [1e9, 2e9, 4e9], flops=[1e21] * 3)
    both = Runs.of(
        *(np.concatenate([getattr(good, f), getattr(bump, f)]) for f in ("loss", "parameters", "tokens", "flops"))
    )
    assert fit_isoflops(both, "quadratic").left_out == (1e21,)
    assert fit_isoflops(both, "quadratic").parameters_law == fit_isoflops(good, "quadratic").parameters_law


def test_too_few_budgets_are_refused():
    one = example_runs().by_budget()[0]
    for method in ("lowest", "quadratic"):
        with pytest.raises(UsageError, match="found for 1 of 1 compute budgets; at least 2"):
            fit_isoflops(one, method)
    with pytest.raises(UsageError, match="the method is 'cubic'; allowed are lowest, quadratic"):
        fit_isoflops(one, "cubic")
    with pytest.raises(UsageError, match="1 different x; at least 2"):
        fit_power_law(np.array([1.0, 1.0]), np.array([1.0, 2.0]))


def test_the_courses_runs(shared_data):
    fit = fit_isoflops(read_runs(shared_data / "scaling/isoflops_curves.json"), "lowest")
    assert len(fit.optima) == 9
    assert fit.parameters_law(1e23) == pytest.approx(7.0e10, rel=0.005)
    assert fit.tokens_law(1e23) == pytest.approx(2.4e11, rel=0.01)
    assert fit.parameters_law(1e24) == pytest.approx(2.06e11, rel=0.005)
    assert fit.exponents == pytest.approx((0.469, 0.531), abs=0.0005)


def test_a_nearly_straight_profile_has_no_minimum():
    parameters = np.array([1e6, 2e6, 4e6, 8e6])
    line = 3.0 - 0.1 * np.log(parameters / 1e6)
    barely_bent = Runs.of(line + 1e-4 * np.log(parameters / 2e6) ** 2, parameters=parameters, flops=np.full(4, 1e18))
    assert quadratic_minimum(barely_bent) is None
    bent = Runs.of(line + 0.05 * np.log(parameters / 2e6) ** 2, parameters=parameters, flops=np.full(4, 1e18))
    assert quadratic_minimum(bent).parameters == pytest.approx(2e6 * np.exp(0.1 / (2 * 0.05)))
