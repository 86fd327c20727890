"""Logistic regression with an L2 penalty, by Newton's method."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from cs336_basics.command_line import UsageError

CLIP = 3.0
"""Standardized features are cut to this many standard deviations, so that no single one decides."""


class LogisticModel(NamedTuple):
    """A probability from features: sigmoid(bias + weights · clip((features - mean) / scale, -3, 3))."""

    mean: Float64[np.ndarray, "features"]
    scale: Float64[np.ndarray, "features"]
    weights: Float64[np.ndarray, "features"]
    bias: float

    def standardized(self, features: Float64[np.ndarray, "... features"]) -> Float64[np.ndarray, "... features"]:
        """The features as the weights apply to them."""
        return np.clip((features - self.mean) / self.scale, -CLIP, CLIP)

    def probability(self, features: Float64[np.ndarray, "... features"]) -> Float64[np.ndarray, "..."]:
        """The probability of the positive class, in [0, 1]."""
        return sigmoid(self.standardized(features) @ self.weights + self.bias)


def sigmoid(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def fit_logistic(
    features: Float64[np.ndarray, "examples features"],
    labels: Float64[np.ndarray, "examples"],
    *,
    penalty: float = 1.0,
    max_steps: int = 100,
) -> LogisticModel:
    """The weights of greatest penalized likelihood; both classes count the same, however many examples they have.

    Minimizes the negative log-likelihood plus penalty/2 · |weights|²; the bias is free.

    Args:
        features: of the examples.
        labels: 1 for positive, 0 for negative examples.
        penalty: the strength of the penalty, greater than 0.
        max_steps: the most Newton steps.

    Raises:
        UsageError: one of the classes is empty, or the penalty is not positive.
    """
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        raise UsageError(f"{positives} of {len(labels)} examples are positive; examples of both classes are needed")
    if penalty <= 0:
        raise UsageError(f"penalty {penalty} must be greater than 0")
    mean, scale = features.mean(0), features.std(0)
    start = LogisticModel(mean, np.where(scale > 0, scale, 1.0), np.zeros(features.shape[1]), 0.0)
    design = np.column_stack([start.standardized(features), np.ones(len(labels))])
    importance = np.where(labels == 1, 0.5 / positives, 0.5 / (len(labels) - positives)) * len(labels)
    penalties = np.append(np.full(features.shape[1], penalty), 0.0)
    weights = np.zeros(design.shape[1])

    def loss(candidate: np.ndarray) -> float:
        margins = np.where(labels == 1, 1.0, -1.0) * (design @ candidate)
        return float(importance @ np.logaddexp(0.0, -margins) + penalties @ candidate**2 / 2)

    for _ in range(max_steps):
        probability = sigmoid(design @ weights)
        gradient = design.T @ (importance * (probability - labels)) + penalties * weights
        curvature = importance * probability * (1 - probability)
        hessian = design.T @ (design * curvature[:, None]) + np.diag(penalties + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and loss(weights - size * step) > loss(weights):  # full steps may overshoot far from the end
            size /= 2
        weights = weights - size * step
        if np.abs(step).max() < 1e-9:
            break
    return start._replace(weights=weights[:-1], bias=float(weights[-1]))
