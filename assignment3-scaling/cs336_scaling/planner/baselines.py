"""What the planner is measured against: two ways to spend the same budget that need no fit.

Both run in the planner's own space of configurations, so the difference is in how they choose.
"""

import numpy as np
from pydantic import BaseModel

from cs336_basics.command_line import UsageError
from cs336_scaling.planner.laboratory import Laboratory
from cs336_scaling.planner.space import Choice, Space
from cs336_scaling.planner.surrogate import Settings

TOKENS_PER_PARAMETER = 20.0
"""The ratio of Chinchilla itself, 1.4e12 tokens for 70e9 parameters (Hoffmann et al. 2022)."""


def _parameters(settings: Settings) -> np.ndarray:
    return settings.blocks + settings.embeddings


def _with_ratio(space: Space, cost: float, ratio: float, batch: int, for_target: bool = False) -> Choice:
    """The choice for a cost whose tokens per parameter, then batch size, come nearest to what is wanted."""
    choices, settings = space.choices(cost, for_target)
    ratio_misfit = np.abs(np.log(settings.tokens / _parameters(settings) / ratio))
    batch_misfit = np.abs(np.log([choice.batch / batch for choice in choices]))
    return choices[int(np.argmin(ratio_misfit + 10 * batch_misfit))]


def random_search(space: Space, laboratory: Laboratory, seed: int) -> BaseModel:
    """Random sizes, batches, learning rates and costs (0.5 % to 30 % of the budget, log-uniform) until it is spent.

    The run with the lowest loss is scaled to the target: same tokens per parameter, batch size and learning rate.

    Raises:
        UsageError: no run came to an end.
    """
    random = np.random.default_rng(seed)
    total = laboratory.budget().total
    best_loss, best = np.inf, None
    for _ in range(200):
        left = laboratory.budget().remaining
        cost = space.level(min(left, total * np.exp(random.uniform(np.log(0.005), np.log(0.3)))))
        if cost == 0:
            break
        choices, settings = space.choices(cost)
        ratio = np.exp(random.uniform(np.log(1), np.log(400)))
        batch = choices[random.integers(len(choices))].batch
        lr = float(np.exp(random.uniform(*np.log([min(space.sweep_lrs), max(space.sweep_lrs)]))))
        choice = _with_ratio(space, cost, ratio, batch)
        config = space.config(choice, lr, cost)
        if space.reserve(config) > left:
            if left < 0.01 * total:
                break
            continue
        outcome = laboratory.submit(config)
        problem = space.learn(config, outcome)
        if not problem and outcome.loss is not None and outcome.loss < best_loss:
            settings = space.settings(config)
            best_loss = outcome.loss
            best = float(settings.tokens[0] / _parameters(settings)[0]), choice.batch, lr
    if best is None:
        raise UsageError(f"the budget is {total:g} {space.unit}; no run of the random search came to an end in it")
    ratio, batch, lr = best
    return space.config(
        _with_ratio(space, space.target, ratio, batch, for_target=True), lr, space.target, for_target=True
    )


def fixed_ratio(space: Space, laboratory: Laboratory) -> BaseModel:
    """20 tokens per parameter; a sweep of six learning rates at 15 % of the budget each, at a default batch size.

    The best learning rate is used for the target as it is.
    """
    total = laboratory.budget().total
    batch = space.sweep_batches[-1]
    best_loss, best_lr = np.inf, float(np.median(space.sweep_lrs))
    cost = space.level(0.15 * total)
    for lr in np.geomspace(min(space.sweep_lrs), max(space.sweep_lrs), 6):
        config = space.config(_with_ratio(space, cost, TOKENS_PER_PARAMETER, batch), float(lr), cost)
        if space.reserve(config) > laboratory.budget().remaining:
            break
        outcome = laboratory.submit(config)
        problem = space.learn(config, outcome)
        if not problem and outcome.loss is not None and outcome.loss < best_loss:
            best_loss, best_lr = outcome.loss, float(lr)
    choice = _with_ratio(space, space.target, TOKENS_PER_PARAMETER, batch, for_target=True)
    return space.config(choice, best_lr, space.target, for_target=True)
