"""Runs to try the fits on: a seeded surface whose true law is known."""

import numpy as np

from cs336_scaling.fitting.chinchilla import PUBLISHED
from cs336_scaling.fitting.runs import FLOPS_PER_PARAMETER_AND_TOKEN, Runs

BUDGETS = (1e17, 3e17, 1e18, 3e18, 1e19, 3e19, 1e20)
"""FLOPs."""


def example_runs(seed: int = 0, noise: float = 0.003, sizes: int = 9) -> Runs:
    """IsoFLOP profiles of a made-up world that follows Chinchilla's published law exactly, but for noise.

    At each budget C, `sizes` models lie evenly in log N from 1/8 to 8 times the true N_opt(C), with D = C/(6·N); the
    loss is E + A/N^α + B/D^β with the coefficients of Hoffmann et al. 2022, times exp(noise·z) with z standard normal.

    Args:
        seed: of the noise.
        noise: its relative standard deviation.
        sizes: model sizes per budget.
    """
    random = np.random.default_rng(seed)
    flops = np.repeat(BUDGETS, sizes)
    best = np.repeat([PUBLISHED.optimal(budget)[0] for budget in BUDGETS], sizes)
    parameters = np.round(best * np.tile(np.geomspace(1 / 8, 8, sizes), len(BUDGETS)))
    tokens = flops / (FLOPS_PER_PARAMETER_AND_TOKEN * parameters)
    loss = PUBLISHED.loss(parameters, tokens) * np.exp(noise * random.standard_normal(len(flops)))
    return Runs.of(loss, parameters, tokens, flops)
