"""Chinchilla's and Kaplan's losses: gradients, known laws, optima against brute force, bootstrap, held-out error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, curve_fit, minimize_scalar
from scipy.special import huber as scipy_huber

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting import chinchilla, kaplan
from cs336_scaling.fitting.bootstrap import bootstrap
from cs336_scaling.fitting.chinchilla import PUBLISHED, ChinchillaLaw, fit_chinchilla
from cs336_scaling.fitting.example_runs import example_runs
from cs336_scaling.fitting.extrapolation import extrapolate, split_by_budget
from cs336_scaling.fitting.huber import DELTA, huber
from cs336_scaling.fitting.kaplan import KaplanLaw, fit_kaplan
from cs336_scaling.fitting.methods import METHODS
from cs336_scaling.fitting.runs import Runs, column_names, read_table, runs_from_rows

KAPLAN_PUBLISHED = KaplanLaw(n_c=6.4e13, d_c=1.8e13, alpha_n=0.076, alpha_d=0.103)  # Kaplan et al. 2020, table 2


def _grid(sizes=6, ratios=6):
    n, ratio = np.meshgrid(np.geomspace(1e6, 1e9, sizes), np.geomspace(3, 300, ratios))
    return n.ravel(), (n * ratio).ravel()


def test_huber_is_scipys():
    residuals = np.linspace(-5 * DELTA, 5 * DELTA, 41)
    value, slope = huber(residuals)
    assert value == pytest.approx(scipy_huber(DELTA, residuals).sum())
    numeric = [(scipy_huber(DELTA, r + 1e-9) - scipy_huber(DELTA, r - 1e-9)) / 2e-9 for r in residuals]
    np.testing.assert_allclose(slope, numeric, atol=1e-8)


@pytest.mark.parametrize(
    ("module", "coefficients"),
    [
        (chinchilla, [6.0, 6.1, 0.5, 0.34, 0.28]),
        (chinchilla, [1.0, -2.0, 0.1, 1.2, 0.1]),
        (kaplan, [4.0, 1.0, 0.7, 0.2]),
    ],
)
def test_gradients_are_those_of_finite_differences(module, coefficients):
    log_n, log_d = (np.log(values) for values in _grid(4, 3))
    log_n, log_d = log_n - log_n.mean(), log_d - log_d.mean()
    coefficients = np.array(coefficients)
    _, derivatives = module.log_loss_and_derivatives(coefficients, log_n, log_d)
    numeric = approx_fprime(coefficients, lambda c: module.log_loss_and_derivatives(c, log_n, log_d)[0], 1e-7)
    np.testing.assert_allclose(derivatives, numeric, rtol=1e-4, atol=1e-5)


@settings(deadline=None, derandomize=True, max_examples=8)
@given(st.floats(0.5, 3), st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0.2, 0.7), st.floats(0.2, 0.7))
def test_chinchilla_recovers_its_coefficients(irreducible, size_term, data_term, alpha, beta):
    n, d = _grid()
    law = ChinchillaLaw(irreducible, size_term * 1e7**alpha, data_term * 1e8**beta, alpha, beta)
    found = fit_chinchilla(Runs.of(law.loss(n, d), n, d))
    np.testing.assert_allclose(found.loss(n, d), law.loss(n, d), rtol=1e-4)
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), rel=0.02)
    assert found.irreducible == pytest.approx(irreducible, rel=0.02)


@settings(deadline=None, derandomize=True, max_examples=5)
@given(st.floats(0.05, 0.3), st.floats(0.05, 0.3), st.floats(1e11, 1e15), st.floats(1e11, 1e15))
def test_kaplan_recovers_its_coefficients(alpha_n, alpha_d, n_c, d_c):
    n, d = _grid()
    law = KaplanLaw(n_c, d_c, alpha_n, alpha_d)
    found = fit_kaplan(Runs.of(law.loss(n, d), n, d))
    np.testing.assert_allclose(found.loss(n, d), law.loss(n, d), rtol=1e-4)


def test_kaplan_recovers_the_published_coefficients():
    n, d = _grid()
    found = fit_kaplan(Runs.of(KAPLAN_PUBLISHED.loss(n, d), n, d))
    assert found.coefficients() == pytest.approx(KAPLAN_PUBLISHED.coefficients(), rel=1e-4)


def test_outliers_move_the_fit_little_where_least_squares_follows_them():
    n, d = _grid()
    loss = PUBLISHED.loss(n, d)
    loss[::7] *= 1.3
    clean = np.arange(len(loss)) % 7 > 0
    found = fit_chinchilla(Runs.of(loss, n, d))

    def curve(_, e, a, b, alpha, beta):
        return np.log(np.exp(e) + np.exp(a) * n**-alpha + np.exp(b) * d**-beta)

    start = [np.log(1.69), np.log(406.4), np.log(410.7), 0.34, 0.28]
    e, a, b, alpha, beta = curve_fit(curve, None, np.log(loss), p0=start, maxfev=20_000)[0]
    squares = ChinchillaLaw(np.exp(e), np.exp(a), np.exp(b), alpha, beta)

    def error(law):
        return np.abs(law.loss(n, d) / PUBLISHED.loss(n, d) - 1)[clean].mean()

    assert error(found) < 0.002 < 0.02 < error(squares)


@pytest.mark.parametrize("law", [PUBLISHED, KAPLAN_PUBLISHED])
@pytest.mark.parametrize("flops", [1e18, 5.76e23])
def test_optima_are_those_of_brute_force(law, flops):
    n_opt, d_opt = law.optimal(flops)
    search = minimize_scalar(
        lambda log_n: law.loss(np.exp(log_n), flops / (6 * np.exp(log_n))), bounds=(np.log(1e4), np.log(1e15)),
        method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert n_opt == pytest.approx(np.exp(search.x), rel=1e-4)
    assert 6 * n_opt * d_opt == pytest.approx(flops)
    assert law.optimal_loss(flops) == pytest.approx(search.fun)
    # The exponents are the optimum's slope in log space.
    assert np.log10(law.optimal(10 * flops)[0] / n_opt) == pytest.approx(law.exponents[0])


def test_the_published_law_gives_the_papers_exponents():
    assert PUBLISHED.exponents == pytest.approx((0.46, 0.54), abs=0.01)  # Hoffmann et al. 2022, table 2, approach 3
    assert PUBLISHED.loss(np.array(70e9), np.array(1.4e12)) == pytest.approx(1.94, abs=0.01)  # Chinchilla itself


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(12):
        runs = example_runs(seed=seed, noise=0.003, sizes=5)

        def statistics(sample):
            return {"exponent": METHODS["chinchilla"](sample, start=PUBLISHED).exponents[0]}

        hits += PUBLISHED.exponents[0] in bootstrap(runs, statistics, samples=20, seed=seed).interval("exponent", 0.9)
    assert 7 <= hits <= 12  # 11 expected; the bootstrap of 35 runs is a little narrow


def test_bootstrap_keeps_strata_and_counts_failures():
    runs = example_runs()
    strata = runs.budget_of_each()
    sizes = []

    def statistics(sample):
        sizes.append([len(profile) for profile in sample.by_budget()])
        if len(sizes) % 2:
            raise UsageError("no fit")
        return {"mean": float(sample.loss.mean())}

    found = bootstrap(runs, statistics, samples=10, strata=strata)
    assert all(size == [9] * 7 for size in sizes)
    assert found.failed == 5
    assert len(found.values["mean"]) == 5
    assert np.isnan(found.interval("other").low)


def test_held_out_error_is_small_for_the_right_form_only():
    runs = example_runs(noise=0.0)
    seen, unseen = split_by_budget(runs, 2)
    assert seen.flops.max() < unseen.flops.min()
    assert len(seen) + len(unseen) == len(runs)
    right, wrong = (extrapolate(runs, method, held_out=2) for method in ("chinchilla", "kaplan"))
    assert right.mean_relative_error < 1e-4 < 0.01 < wrong.mean_relative_error
    assert right.growth == pytest.approx(1e20 / 1e19)
    for method in ("lowest", "quadratic"):
        assert extrapolate(runs, method, held_out=2).mean_relative_error < 0.01


@pytest.mark.parametrize("held_out", [0, 6, 99])
def test_held_out_budgets_must_leave_two(held_out):
    with pytest.raises(UsageError, match=f"{held_out} held-out budgets of 7"):
        split_by_budget(example_runs(), held_out)


@pytest.mark.parametrize("fit", [fit_chinchilla, fit_kaplan])
def test_too_few_runs_are_refused(fit):
    runs = example_runs()
    with pytest.raises(UsageError, match="coefficients; 3 runs"):
        fit(runs.select(np.arange(3)))
    with pytest.raises(UsageError, match="1 different N"):
        fit(runs.select(np.full(9, 4)))


def test_real_runs_are_extrapolated_to_the_largest_budget(shared_data):
    rows = [row for row in read_table(shared_data / "scaling/openlm_runs.csv") if row["dataset"] == "c4_original"]
    losses = column_names(rows, "loss@*")
    assert len(losses) == 8
    errors = [extrapolate(runs_from_rows(rows, loss=loss), "chinchilla").mean_relative_error for loss in losses]
    assert np.median(errors) < 0.04
