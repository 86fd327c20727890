"""Simulated worlds: the documented surface, its noise, its clock, and its true optimum against random search."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from cs336_scaling.schemas.edition_2025 import TRAIN_FLOPS, LossQuery
from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.simulate.hidden import HiddenParameters
from cs336_scaling.simulate.loss_surface import UNIFORM_LOSS, best_lr, critical_batch
from cs336_scaling.simulate.runs import Runs
from cs336_scaling.simulate.world import World

from .training_configs import adamw, architecture, schedule, training_config


def _config(**changes):
    return TrainingConfig.model_validate(training_config(**changes))


def _with_lr(lr, **changes):
    return _config(optimizer_config=adamw(lr_scheduler=schedule(peak_value=float(lr))), **changes)


def _query(**changes):
    values = {"d_model": 512, "num_layers": 8, "num_heads": 8, "batch_size": 128, "learning_rate": 5e-4}
    return LossQuery.model_validate({**values, "train_flops": 10**17, **changes})


def test_a_seed_names_one_world():
    assert World.from_seed(3) == World.from_seed(3)
    assert World.from_seed(3).hidden != World.from_seed(4).hidden


def test_reducible_loss_is_chinchillas_where_nothing_else_costs():
    """Written out for one 2025 run with plain numbers, at the world's best shape, learning rate and settings."""
    hidden = World.from_seed(0).hidden
    query = _query(train_flops=10**18)
    ideal = {
        **vars(hidden), "aspect_cost": 0.0, "head_dim_cost": 0.0, "feed_forward_cost": 0.0, "lr_cost_low": 0.0,
        "lr_cost_high": 0.0, "warmup_cost": 0.0, "weight_decay_cost": 0.0, "beta_cost": 0.0, "final_lr_cost": 0.0,
    }  # fmt: skip
    world = World(0, HiddenParameters(**ideal))
    batch, tokens = 128 * 512, query.num_tokens
    critical = hidden.critical_batch * (tokens / 1e9) ** hidden.critical_batch_exponent
    by_hand = (
        hidden.irreducible
        + hidden.model_scale / query.num_parameters**hidden.model_exponent
        + hidden.data_scale / (tokens / (1 + batch / critical)) ** hidden.data_exponent
    )
    assert world.expected_loss([query])[0] == pytest.approx(by_hand, rel=2e-3)  # 2e-3: the bend under ln 32,000


@pytest.mark.parametrize("seed", range(4))
def test_loss_is_u_shaped_in_the_learning_rate_around_the_documented_best(seed):
    world = World.from_seed(seed)
    best = best_lr(world.hidden, Runs.from_configs([_config()]))[0]
    found = minimize_scalar(
        lambda log_lr: world.expected_loss([_with_lr(math.exp(log_lr))])[0],
        bounds=(math.log(best) - 1.5, math.log(best) + 1.5), method="bounded", options={"xatol": 1e-6},
    )  # fmt: skip
    assert math.exp(found.x) == pytest.approx(best, rel=1e-2)
    rates = best * np.exp(np.linspace(-4, 1.5, 23))
    losses = world.expected_loss([_with_lr(rate) for rate in rates])
    lowest = int(np.argmin(losses))
    assert np.all(np.diff(losses[: lowest + 1]) < 0)
    assert np.all(np.diff(losses[lowest:]) > 0)


def test_the_best_learning_rate_falls_with_size_and_grows_with_the_batch():
    hidden = World.from_seed(1).hidden
    configs = [
        _config(),
        _config(architecture_config=architecture(num_hidden_layers=24)),
        _config(train_batch_size=128),
    ]
    small, deep, wide_batch = best_lr(hidden, Runs.from_configs(configs))
    assert deep < small < wide_batch


def test_batches_of_the_critical_size_need_twice_the_tokens_of_tiny_ones():
    """Model and optimizer cost nothing here, so the reducible loss is B / D_eff^beta alone."""
    values = vars(World.from_seed(2).hidden)
    costs = {name: 0.0 for name in values if "_cost" in name}
    hidden = HiddenParameters(**{**values, **costs, "model_scale": 0.0, "data_scale": 100.0})
    tokens = 2**30
    critical = critical_batch(hidden, np.array([float(tokens)]))[0]
    rows = 2 ** round(math.log2(critical / 512))
    common = {"total_train_tokens": tokens, "n_evals": 1}
    tiny, large = World(2, hidden).expected_loss(
        [_config(train_batch_size=size, **common) for size in (1, rows)]
    ) - hidden.irreducible  # fmt: skip
    wanted = ((1 + rows * 512 / critical) / (1 + 512 / critical)) ** hidden.data_exponent
    assert large / tiny == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    "worse",
    [
        {"architecture_config": architecture(num_hidden_layers=128, head_dim=16, num_attention_heads=8,
                                             num_key_value_heads=8, hidden_size=128, intermediate_size=352)},
        {"optimizer_config": adamw(weight_decay=0.0)},
        {"optimizer_config": adamw(lr_scheduler=schedule(final_lr_frac=1.0))},
        {"optimizer_config": {"lr_scheduler": schedule(peak_value=0.1), "momentum": 0.9}},
        {"total_train_tokens": 512 * 64 * 500},
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_bad_choices_cost(seed, worse):
    world = World.from_seed(seed)
    good, bad = world.expected_loss([_config(), _config(**worse)])
    assert bad > good


def test_too_high_a_learning_rate_diverges_and_costs_only_the_time_until_then():
    world = World.from_seed(5)
    config = _config()
    best = best_lr(world.hidden, Runs.from_configs([config]))[0]
    healthy, broken = world.simulate(_with_lr(best)), world.simulate(_with_lr(30 * best))
    assert not healthy.diverged
    assert len(healthy.val_losses) == 10
    assert broken.diverged
    assert len(broken.val_losses) < 10
    assert np.all(np.isfinite(broken.val_losses))
    assert broken.runtime_seconds < healthy.runtime_seconds
    assert world.expected_loss([_with_lr(30 * best)])[0] == math.inf


def test_runs_repeat_exactly_and_seeds_differ_by_the_noise():
    world = World.from_seed(6)
    assert world.simulate(_config()) == world.simulate(_config())
    finals = np.array([world.simulate(_config(model_seed=seed)).val_losses[-1] for seed in range(300)])
    expected = world.expected_loss([_config()])[0]
    assert finals.std() / expected == pytest.approx(world.hidden.noise, rel=0.15)
    assert finals.mean() == pytest.approx(expected, rel=4 * world.hidden.noise / math.sqrt(300))
    assert world.query(_query()) == world.query(_query())


def test_looking_more_often_or_waiting_longer_trains_the_same():
    world = World.from_seed(7)
    reference = world.simulate(_config())
    for change in ({"n_evals": 100}, {"max_runtime_seconds": 43_200}, {"val_batch_size": 1}):
        assert world.simulate(_config(**change)).val_losses[-1] == reference.val_losses[-1]


def test_losses_fall_along_a_run_and_start_below_a_uniform_guess():
    for seed in range(5):
        losses = World.from_seed(seed).simulate(_config(n_evals=20)).val_losses
        assert losses[0] < UNIFORM_LOSS
        assert np.all(np.diff(losses) < 0)


def test_validations_come_in_order_and_the_last_one_ends_the_run():
    run = World.from_seed(8).simulate(_config())
    assert run.val_steps == list(range(100, 1001, 100))
    assert np.all(np.diff(run.val_seconds) > 0)
    assert run.val_seconds[-1] == run.runtime_seconds


def test_time_grows_with_what_there_is_to_compute():
    world = World.from_seed(9)
    base, double, deep, exact, small_batch = world.expected_seconds([
        _config(),
        _config(total_train_tokens=512 * 64 * 2000),
        _config(architecture_config=architecture(num_hidden_layers=16)),
        _config(architecture_config=architecture(dtype="float32")),
        _config(train_batch_size=8),
    ])  # fmt: skip
    startup = world.hidden.startup
    evals = 10 * world.hidden.eval_overhead
    assert base - startup < double - startup < 2 * (base - startup)
    assert deep > base
    assert 3 * (base - startup - evals) < exact
    assert small_batch > base, "eight times the steps, each with its overhead"
    measured = [world.simulate(_config(model_seed=seed)).runtime_seconds for seed in range(50)]
    assert np.median(measured) == pytest.approx(base, rel=0.01)


def test_every_allowed_query_has_a_finite_loss_below_a_uniform_guess():
    world = World.from_seed(10)
    losses = [
        world.query(_query(d_model=width, num_layers=layers, learning_rate=lr, train_flops=flops))
        for width in (64, 1024) for layers in (2, 24) for lr in (1e-4, 1e-3) for flops in TRAIN_FLOPS
    ]  # fmt: skip
    assert np.all(np.isfinite(losses))
    assert max(losses) <= UNIFORM_LOSS * 1.01
    assert min(losses) > world.hidden.irreducible


def test_each_2025_budget_has_its_own_best_size():
    world = World.from_seed(11)
    sizes = [world.optimum(train_flops=flops).config.num_parameters for flops in (1e17, 1e18, 1e19, 1e20)]
    slopes = np.diff(np.log10(sizes))
    assert np.all(slopes > 0)
    exponent = world.hidden.data_exponent / (world.hidden.model_exponent + world.hidden.data_exponent)
    # Chinchilla's closed form; batches that grow small beside the critical one shift it a little.
    assert np.mean(slopes) == pytest.approx(exponent, abs=0.08)


@pytest.mark.parametrize("seed", range(3))
def test_no_random_query_beats_the_optimum(seed):
    world, rng = World.from_seed(seed), np.random.default_rng(seed)
    best = world.optimum(train_flops=1e19)
    assert world.expected_loss([best.config])[0] == pytest.approx(best.loss)
    queries = [
        _query(
            d_model=64 * int(rng.integers(1, 40)), num_layers=int(rng.integers(2, 40)),
            num_heads=int(rng.integers(2, 17)), batch_size=int(rng.choice([128, 256])),
            learning_rate=float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-3)))), train_flops=10**19,
        )
        for _ in range(4000)
    ]  # fmt: skip
    losses = world.expected_loss(queries)
    assert losses.min() > best.loss * 0.9999
    assert losses.min() < best.loss * 1.02, "the search above should come near it"


@pytest.mark.parametrize("seed", range(3))
def test_no_random_configuration_of_the_same_time_beats_the_optimum(seed):
    world, rng = World.from_seed(seed), np.random.default_rng(seed)
    best = world.optimum(seconds=3600)
    assert world.expected_loss([best.config])[0] == pytest.approx(best.loss)
    assert 3590 < world.expected_seconds([best.config])[0] <= 3600
    shape = best.config.architecture_config
    for _ in range(300):
        heads = max(1, round(shape.num_attention_heads * np.exp(rng.normal(0, 0.3))))
        layers = max(1, round(shape.num_hidden_layers * np.exp(rng.normal(0, 0.3))))
        width = heads * shape.head_dim
        batch = max(1, round(best.config.train_batch_size * np.exp(rng.normal(0, 0.5))))
        lr = best.config.optimizer_config.lr_scheduler.peak_value * np.exp(rng.normal(0, 0.3))
        body = best.config.model_dump()
        body["architecture_config"].update(
            hidden_size=width, num_attention_heads=heads, num_key_value_heads=heads, num_hidden_layers=layers,
            intermediate_size=max(width, round(shape.intermediate_size / shape.hidden_size * width)),
        )  # fmt: skip
        body["optimizer_config"]["lr_scheduler"]["peak_value"] = float(lr)
        body.update(train_batch_size=batch, total_train_tokens=512 * batch)
        one_step = world.expected_seconds([TrainingConfig.model_validate(body)])[0]
        body["total_train_tokens"] = 2 * 512 * batch
        per_step = world.expected_seconds([TrainingConfig.model_validate(body)])[0] - one_step
        steps = int((3600 - one_step) / per_step) + 1
        body["total_train_tokens"] = steps * 512 * batch
        challenger = TrainingConfig.model_validate(body)
        assert world.expected_loss([challenger])[0] > best.loss * 0.9995


def test_an_optimum_needs_one_budget_that_a_model_fits_into():
    world = World.from_seed(0)
    with pytest.raises(ValueError, match="exactly one budget"):
        world.optimum()
    with pytest.raises(ValueError, match="exactly one budget"):
        world.optimum(train_flops=1e19, seconds=10)
    with pytest.raises(ValueError, match="no model fits"):
        world.optimum(seconds=1)
