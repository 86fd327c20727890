"""Robust fits of log losses: the Huber loss, and L-BFGS from many starting points.

Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556), section 3.3 and appendix D.3: the Huber loss with δ = 10⁻³ on
differences of log losses, so that single bad runs weigh little, and the best of many L-BFGS fits.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

DELTA = 1e-3
"""Differences of log losses up to here count by their square, larger ones linearly."""

Curve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Coefficients -> the log losses (runs) they predict, and their derivatives (runs × coefficients)."""


def huber(residuals: Float[np.ndarray, " runs"], delta: float = DELTA) -> tuple[float, Float[np.ndarray, " runs"]]:
    """The sum of Huber losses, r²/2 up to δ and δ·(|r| − δ/2) beyond (Huber 1964), and its gradient by residual."""
    size = np.abs(residuals)
    values = np.where(size <= delta, residuals**2 / 2, delta * (size - delta / 2))
    return float(values.sum()), np.clip(residuals, -delta, delta)


def fit_log_losses(
    curve: Curve,
    log_loss: Float[np.ndarray, " runs"],
    starts: Float[np.ndarray, "starts coefficients"],
    bounds: Sequence[tuple[float | None, float | None]],
    *,
    polish: int = 6,
) -> Float[np.ndarray, " coefficients"]:
    """The coefficients with the least sum of Huber losses of curve − log loss.

    Every start is scored, and L-BFGS runs from the `polish` best of them.

    Args:
        curve: predicts log losses and gives their derivatives.
        log_loss: what was measured.
        starts: starting points.
        bounds: for each coefficient the lowest and the highest value, None for no bound.
        polish: how many of the starts are optimized.
    """

    def objective(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        predicted, derivatives = curve(coefficients)
        value, by_residual = huber(predicted - log_loss)
        # In units of δ²; as it stands, the sum is so small that L-BFGS would take the start for the minimum
        # (Besiroglu et al. 2024, https://arxiv.org/abs/2404.10102, found the published fit to have stopped early).
        return value / DELTA**2, derivatives.T @ by_residual / DELTA**2

    scores = [huber(curve(start)[0] - log_loss)[0] for start in starts]
    results = [
        minimize(
            objective, starts[index], jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": 1000, "maxfun": 2000, "ftol": 1e-12, "gtol": 1e-8, "maxcor": 20},
        )
        for index in np.argsort(scores, kind="stable")[:polish]
    ]  # fmt: skip
    return min(results, key=lambda result: result.fun).x
