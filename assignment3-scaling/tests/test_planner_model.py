"""The planner's models of loss and time: known coefficients, brute force, finite differences, simulated machines."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize_scalar

from cs336_scaling.planner.runtime_model import RuntimeModel, Work
from cs336_scaling.planner.space import Choice
from cs336_scaling.planner.surrogate import PRIORS, Settings, Surrogate, fit_surrogate, log_best_lr, log_loss
from cs336_scaling.planner.wall_clock_space import WallClockSpace
from cs336_scaling.simulate.world import World

MEANS = np.array([prior.mean for prior in PRIORS.values()])
SDS = np.array([prior.sd for prior in PRIORS.values()])


def _runs(count, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    blocks = scale * np.exp(random.uniform(np.log(3e6), np.log(1e8), count))
    tokens = blocks * np.exp(random.uniform(np.log(5), np.log(100), count))
    batch = 2.0 ** random.integers(14, 19, count)
    lr = np.exp(random.uniform(np.log(3e-4), np.log(6e-3), count))
    return Settings(blocks, 0.3 * blocks, tokens, batch, lr)


def _true_coefficients(seed):
    return MEANS + 0.7 * SDS * np.clip(np.random.default_rng(seed).standard_normal(len(MEANS)), -1.5, 1.5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_loss_is_recovered_and_extrapolated(seed):
    truth = _true_coefficients(seed)
    runs = _runs(80)
    noise = 1e-3 * np.random.default_rng(seed).standard_normal(80)
    model = fit_surrogate(runs, np.exp(log_loss(truth, runs) + noise))
    larger = _runs(20, seed=9, scale=10.0)
    larger = larger.with_lr(np.exp(log_best_lr(truth, larger)))
    errors = np.log(model.loss(larger)) - log_loss(truth, larger)
    assert np.abs(errors).max() < 0.03
    assert 2e-4 < model.noise < 3e-3
    # The posterior's standard deviation is of the errors' size.
    assert np.sqrt(np.mean((errors / model.log_sd(larger)) ** 2)) < 3


def test_without_runs_the_prior_speaks_and_runs_narrow_it():
    nothing = np.array([])
    prior = fit_surrogate(Settings(*[nothing] * 5), nothing)
    np.testing.assert_allclose(prior.theta, MEANS)
    np.testing.assert_allclose(np.sqrt(np.diag(prior.covariance)), SDS, rtol=1e-6)
    target = _runs(1, seed=5, scale=10.0)
    spreads = [prior.log_sd(target)[0]]
    for count in (15, 60):
        runs = _runs(count)
        spreads.append(fit_surrogate(runs, np.exp(log_loss(MEANS, runs))).log_sd(target)[0])
    assert spreads[0] > 3 * spreads[1] > 3 * spreads[2]


def test_the_best_learning_rate_is_that_of_brute_force():
    truth = _true_coefficients(4)
    model = Surrogate(truth, np.eye(len(truth)), 1e-3, 2.0)
    runs = _runs(6)
    for index in range(len(runs)):
        one = runs.at(index)
        search = minimize_scalar(
            lambda x, one=one: model.loss(one.with_lr(np.exp(np.array([x]))))[0], bounds=(-14, 2), method="bounded"
        )
        assert model.best_lr(one)[0] == pytest.approx(np.exp(search.x), rel=1e-2)


def test_gradients_are_those_of_finite_differences():
    truth = _true_coefficients(5)
    runs = _runs(7)
    found = Surrogate(truth, np.eye(len(truth)), 1e-3, 2.0).gradient(runs)
    np.testing.assert_allclose(found, approx_fprime(truth, lambda t: log_loss(t, runs), 1e-7), rtol=1e-3, atol=1e-5)


def test_runs_far_above_the_lowest_loss_are_trusted_less():
    model = Surrogate(MEANS, np.eye(len(MEANS)), 1e-3, 3.0)
    near, far = model.run_sd(np.array([3.0, 6.0]))
    assert near == pytest.approx(1e-3)
    assert far > 4 * near


@pytest.mark.parametrize("seed", [1000, 1001])
def test_times_of_a_simulated_machine_are_learned(seed):
    world, space = World.from_seed(seed), WallClockSpace()
    for choice, cost in (
        (Choice(64, 8), 30), (Choice(256, 32), 60), (Choice(256, 128), 100), (Choice(512, 64), 200),
        (Choice(768, 128), 600), (Choice(1024, 128), 2000),
    ):  # fmt: skip
        config = space.config(choice, 1e-3, cost)
        space.runtime.learn(config, float(world.expected_seconds([config])[0]), stopped=False)
    config = space.config(Choice(1536, 192), 1e-3, 20_000)
    expected = float(world.expected_seconds([config])[0])
    shape, steps = config.architecture_config, config.num_steps
    assert space.runtime.seconds(Work.of(shape, 192), steps) == pytest.approx(expected, rel=0.1)
    assert space.runtime.relative_sd(Work.of(shape, 192), steps) < 0.1
    # A target's configuration leaves room for what is not known.
    target = space.config(Choice(1536, 192), 3e-4, 172_800, for_target=True)
    assert 0.7 * 172_800 < float(world.expected_seconds([target])[0]) < 172_800


def test_a_stopped_run_is_a_lower_bound():
    space = WallClockSpace()
    config = space.config(Choice(256, 32), 1e-3, 60)
    shape, steps = config.architecture_config, config.num_steps
    model = RuntimeModel()
    model.learn(config, 5.0, stopped=True)  # shorter than foretold: says nothing
    assert model.seconds(Work.of(shape, 32), steps) == pytest.approx(RuntimeModel().seconds(Work.of(shape, 32), steps))
    model.learn(config, 600.0, stopped=True)
    assert model.seconds(Work.of(shape, 32), steps) > 500


def test_a_thousand_times_slower_machine_is_learned_from_a_few_runs():
    space, model = WallClockSpace(), RuntimeModel()
    for width, batch, cost in ((64, 8, 30), (128, 8, 30), (256, 16, 60)):
        config = space.config(Choice(width, batch), 1e-3, cost)
        slow = 1000 * space.runtime.seconds(Work.of(config.architecture_config, batch), config.num_steps)
        model.learn(config, slow, stopped=False)
    config = space.config(Choice(512, 32), 1e-3, 60)
    slow = 1000 * space.runtime.seconds(Work.of(config.architecture_config, 32), config.num_steps)
    assert model.seconds(Work.of(config.architecture_config, 32), config.num_steps) == pytest.approx(slow, rel=1.0)
