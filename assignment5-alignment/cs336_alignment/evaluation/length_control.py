"""A win rate without the advantage of length.

Dubois et al. 2024, "Length-Controlled AlpacaEval" (arXiv:2404.04475), equation 2, without its last term: the difficulty
of each instruction, which only the annotations of the public leaderboard tell.
"""

from collections.abc import Sequence

import numpy as np

RIDGE = 1e-2
"""Keeps the fit finite where length alone decides; a hundredth of an observation."""
_STEPS = 100


def length_controlled_win_rate(preferences: Sequence[float], length_differences: Sequence[float]) -> float | None:
    """The win rate that a logistic model predicts for answers as long as the references.

    logit P(win) = theta + phi * tanh(d / std(d)), where d is how much longer the answer is; the result is
    sigmoid(theta).

    Args:
        preferences: for each pair, 0 to 1.
        length_differences: for each pair, length of the answer minus that of the reference.

    Returns:
        The rate in [0, 1]; None without pairs.
    """
    wins, differences = np.asarray(preferences, dtype=float), np.asarray(length_differences, dtype=float)
    if not len(wins):
        return None
    scale = differences.std() or 1.0
    theta, _ = fit_logistic(np.stack([np.ones_like(wins), np.tanh(differences / scale)], axis=1), wins)
    return float(1 / (1 + np.exp(-theta)))


def fit_logistic(features: np.ndarray, targets: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Weights (feature,) of logistic regression by Newton's method, with the penalty ridge/2 * |weights|^2.

    Args:
        features: (observation, feature).
        targets: (observation,), in [0, 1].
        ridge: above 0.
    """
    weights = np.zeros(features.shape[1])
    for _ in range(_STEPS):
        predicted = 1 / (1 + np.exp(-np.clip(features @ weights, -500, 500)))
        gradient = features.T @ (predicted - targets) + ridge * weights
        curvature = (features.T * (predicted * (1 - predicted))) @ features + ridge * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights -= step / max(1.0, np.linalg.norm(step) / 4)  # far from the optimum a full step can overshoot
        if np.linalg.norm(step) < 1e-10:
            break
    return weights
