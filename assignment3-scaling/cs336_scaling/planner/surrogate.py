"""The planner's model of the loss: Chinchilla's law with batch size and learning rate, and priors on its coefficients.

    L = E + (A / N^α + B / D_eff^β) · (1 + penalty(ln lr − ln lr*))
    penalty(x) = κ_above · x²  above lr*,  2 · κ_below · (√(1 + x²) − 1)  below: far too low costs less than its square
    N = block parameters + w · embedding parameters
    D_eff = D / (1 + batch / B_crit),   B_crit = B_0 · (D / 1e9)^b
    lr* = l_0 · (N_all / 1e8)^(−p) · (batch_eff / 2^18)^q · (D / 1e9)^(−s),   batch_eff = batch / (1 + batch / B_crit)

Sources of the parts: Hoffmann et al. 2022 (arXiv:2203.15556, eq. 10); critical batch size, and a best learning rate
that grows with the batch only up to it: McCandlish et al. 2018 (arXiv:1812.06162, section 2.2), and its growth with the
data: Zhang et al. 2024 (arXiv:2410.21676); learning rates as a power law: Bi et al. 2024 (arXiv:2401.02954, section 3).

Each coefficient has a normal prior, broad around what those papers found, so that the model can be fitted to the
first dozen runs and each further run narrows it. The fit is the posterior's mode, with Laplace's approximation there.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

REFERENCE_SIZE, REFERENCE_TOKENS, REFERENCE_BATCH = 1e8, 1e9, 2.0**18


@dataclass(frozen=True)
class Settings:
    """What the model needs to know of runs; arrays of one length.

    Attributes:
        blocks, embeddings: parameters of the blocks, and of embedding and output head (0 where they do not count).
        tokens, batch: tokens of training, and of one optimizer step.
        lr: peak learning rate.
    """

    blocks: Float[np.ndarray, " runs"]
    embeddings: Float[np.ndarray, " runs"]
    tokens: Float[np.ndarray, " runs"]
    batch: Float[np.ndarray, " runs"]
    lr: Float[np.ndarray, " runs"]

    def __len__(self) -> int:
        return len(self.lr)

    @classmethod
    def stack(cls, parts: "list[Settings]") -> "Settings":
        """The runs of all parts, in order."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def at(self, index: int) -> "Settings":
        """One of the runs."""
        return Settings(*(getattr(self, f.name)[index : index + 1] for f in fields(self)))

    def with_lr(self, lr: Float[np.ndarray, " runs"]) -> "Settings":
        """The same runs at other learning rates."""
        return Settings(self.blocks, self.embeddings, self.tokens, self.batch, lr)


class Prior(NamedTuple):
    """A coefficient's prior: normal with this mean and standard deviation."""

    mean: float
    sd: float


PRIORS: dict[str, Prior] = {
    "ln E": Prior(np.log(1.7), 0.25),
    "ln size term": Prior(np.log(0.77), 0.7),  # A / N^α at the reference size, by Hoffmann et al.
    "ln data term": Prior(np.log(1.2), 0.7),  # B / D^β at the reference tokens
    "α": Prior(0.34, 0.06),
    "β": Prior(0.30, 0.06),
    "w": Prior(0.2, 0.2),
    "ln B_0": Prior(np.log(1e6), 1.0),
    "b": Prior(0.45, 0.12),
    "ln l_0": Prior(np.log(1.5e-3), 0.8),
    "p": Prior(0.25, 0.12),
    "q": Prior(0.4, 0.12),
    "s": Prior(0.05, 0.05),
    "ln κ below": Prior(np.log(0.02), 0.7),
    "ln κ above": Prior(np.log(0.04), 0.7),
}
NAMES = tuple(PRIORS)
_MEANS = np.array([prior.mean for prior in PRIORS.values()])
_SDS = np.array([prior.sd for prior in PRIORS.values()])
DISCREPANCY = 0.01
"""No form is exact: a run with a log loss x above the lowest is trusted to DISCREPANCY · x², besides the noise."""
_NOISE_FLOOR = 4e-4  # relative; no fit may think itself more exact than runs of another seed agree


def _critical_batch(theta: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.exp(theta[6]) * (tokens / REFERENCE_TOKENS) ** theta[7]


def log_best_lr(theta: Float[np.ndarray, "14"], runs: Settings) -> Float[np.ndarray, " runs"]:
    """ln lr* of each run."""
    effective_batch = runs.batch / (1 + runs.batch / _critical_batch(theta, runs.tokens))
    return (
        theta[8]
        - theta[9] * np.log((runs.blocks + runs.embeddings) / REFERENCE_SIZE)
        + theta[10] * np.log(effective_batch / REFERENCE_BATCH)
        - theta[11] * np.log(runs.tokens / REFERENCE_TOKENS)
    )


def log_loss(theta: Float[np.ndarray, "14"], runs: Settings) -> Float[np.ndarray, " runs"]:
    """ln L of each run; the coefficients are in the order of `PRIORS`."""
    size = runs.blocks + np.maximum(theta[5], 0.0) * runs.embeddings
    data = runs.tokens / (1 + runs.batch / _critical_batch(theta, runs.tokens))
    reducible = np.exp(theta[1]) * (size / REFERENCE_SIZE) ** -theta[3]
    reducible = reducible + np.exp(theta[2]) * (data / REFERENCE_TOKENS) ** -theta[4]
    distance = np.log(runs.lr) - log_best_lr(theta, runs)
    below = np.exp(theta[12]) * 2 * (np.sqrt(1 + distance**2) - 1)
    penalty = np.where(distance < 0, below, np.exp(theta[13]) * distance**2)
    return np.log(np.exp(theta[0]) + reducible * (1 + penalty))


@dataclass(frozen=True)
class Surrogate:
    """A fitted model.

    Attributes:
        theta: the posterior's mode, in the order of `PRIORS`.
        covariance: of the posterior, by Laplace's approximation.
        noise: relative standard deviation of a run's loss around the model, near the lowest losses.
        lowest: the lowest loss seen.
    """

    theta: Float[np.ndarray, "14"]
    covariance: Float[np.ndarray, "14 14"]
    noise: float
    lowest: float

    def run_sd(self, losses: Float[np.ndarray, " runs"]) -> Float[np.ndarray, " runs"]:
        """Standard deviation of the log of runs' losses around the model, given (about) what they are."""
        return np.hypot(self.noise, DISCREPANCY * np.maximum(np.log(losses / self.lowest), 0) ** 2)

    def loss(self, runs: Settings) -> Float[np.ndarray, " runs"]:
        """Predicted losses."""
        return np.exp(log_loss(self.theta, runs))

    def best_lr(self, runs: Settings) -> Float[np.ndarray, " runs"]:
        """Best learning rate of each run, all else given."""
        return np.exp(log_best_lr(self.theta, runs))

    def gradient(self, runs: Settings) -> Float[np.ndarray, "runs 14"]:
        """Derivatives of the log losses by the coefficients, by central differences."""
        steps = 1e-4 * np.diag(np.maximum(_SDS, 1e-3))
        return np.stack(
            [(log_loss(self.theta + h, runs) - log_loss(self.theta - h, runs)) / (2 * h.sum()) for h in steps], axis=1
        )

    def log_sd(self, runs: Settings) -> Float[np.ndarray, " runs"]:
        """Standard deviation of the log of each noise-free loss: what is not known of the coefficients."""
        gradient = self.gradient(runs)
        return np.sqrt(np.einsum("ri,ij,rj->r", gradient, self.covariance, gradient))


def fit_surrogate(runs: Settings, losses: Float[np.ndarray, " runs"], start: np.ndarray | None = None) -> Surrogate:
    """The posterior's mode and covariance, given runs that came to an end.

    The noise is estimated from the residuals and the fit repeated with it, until it settles.

    Args:
        runs: what was trained.
        losses: final losses in nats per token.
        start: coefficients to start from (an earlier fit's); None: the priors' means.
    """
    theta = _MEANS.copy() if start is None else start
    observed = np.log(losses)
    lowest = float(np.min(losses, initial=np.inf))
    misfit = DISCREPANCY * np.log(losses / lowest) ** 2
    noise = 5e-3
    for _ in range(4):
        sd = np.hypot(noise, misfit)

        def residuals(theta: np.ndarray, sd: np.ndarray = sd) -> np.ndarray:
            return np.concatenate([(log_loss(theta, runs) - observed) / sd, (theta - _MEANS) / _SDS])

        fit = least_squares(residuals, theta, method="lm", x_scale=_SDS, max_nfev=2000)
        theta = fit.x
        hessian = fit.jac.T @ fit.jac
        covariance = np.linalg.inv(hessian)
        # Coefficients that the data determine use up residuals; the priors determine the others.
        determined = len(theta) - np.trace(covariance / _SDS**2)
        weights = (noise / sd) ** 2
        left = max(float(weights.sum()) - determined, 2.0)
        spread = float(weights @ (log_loss(theta, runs) - observed) ** 2)
        # Worth two runs of a typical 0.2 %: a handful of runs can agree by chance.
        noise = max(_NOISE_FLOOR, float(np.sqrt((spread + 2 * 0.002**2) / (left + 2))))
    return Surrogate(theta, covariance, noise, lowest)
