"""Kaplan's parametric loss L(N, D) = ((N_c/N)^(α_N/α_D) + D_c/D)^α_D.

Kaplan et al. 2020 (https://arxiv.org/abs/2001.08361), equation 1.5. Unlike Chinchilla's it has no irreducible loss:
with enough parameters and data it goes to 0, so it is the more optimistic of the two far beyond the runs.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting.huber import fit_log_losses
from cs336_scaling.fitting.runs import FLOPS_PER_PARAMETER_AND_TOKEN, Runs


@dataclass(frozen=True)
class KaplanLaw:
    """L(N, D) = ((N_c/N)^(α_N/α_D) + D_c/D)^α_D, in nats per token."""

    n_c: float
    d_c: float
    alpha_n: float
    alpha_d: float
    method_name: ClassVar[str] = "parametric loss ((N_c/N)^(α_N/α_D) + D_c/D)^α_D (Kaplan et al. 2020, eq. 1.5)"

    def loss(self, parameters: Float[np.ndarray, "*n"], tokens: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """The predicted loss of models with N parameters after D tokens."""
        ratio = self.alpha_n / self.alpha_d
        return ((self.n_c / parameters) ** ratio + self.d_c / tokens) ** self.alpha_d

    def optimal(self, flops: float) -> tuple[float, float]:
        """(N_opt, D_opt) for a compute budget under C = 6·N·D.

        With r = α_N/α_D, the derivative of (N_c/N)^r + 6·N·D_c/C by N is zero at N^(r+1) = r·N_c^r·C/(6·D_c).
        """
        ratio = self.alpha_n / self.alpha_d
        product_of_both = flops / FLOPS_PER_PARAMETER_AND_TOKEN
        log_n = (np.log(ratio * product_of_both / self.d_c) + ratio * np.log(self.n_c)) / (ratio + 1)
        parameters = float(np.exp(log_n))
        return parameters, product_of_both / parameters

    def optimal_loss(self, flops: float) -> float:
        """The predicted loss of the compute-optimal model."""
        return float(self.loss(*self.optimal(flops)))

    @property
    def exponents(self) -> tuple[float, float]:
        """The exponents of C in N_opt and D_opt: α_D/(α_N+α_D) and α_N/(α_N+α_D)."""
        total = self.alpha_n + self.alpha_d
        return self.alpha_d / total, self.alpha_n / total

    def coefficients(self) -> dict[str, float]:
        """The coefficients under the paper's names."""
        return {"N_c": self.n_c, "D_c": self.d_c, "α_N": self.alpha_n, "α_D": self.alpha_d}


def log_loss_and_derivatives(
    coefficients: Float[np.ndarray, "4"], log_n: Float[np.ndarray, " runs"], log_d: Float[np.ndarray, " runs"]
) -> tuple[Float[np.ndarray, " runs"], Float[np.ndarray, "runs 4"]]:
    """α_D·log(exp(n − r·log N) + exp(d − log D)) and its derivatives by (n, d, r, α_D), with r = α_N/α_D."""
    n, d, ratio, alpha_d = coefficients
    by_size, by_data = n - ratio * log_n, d - log_d
    log_sum = np.logaddexp(by_size, by_data)
    share = np.exp(by_size - log_sum)
    derivatives = np.column_stack([alpha_d * share, alpha_d * (1 - share), -alpha_d * share * log_n, log_sum])
    return alpha_d * log_sum, derivatives


def fit_kaplan(runs: Runs, start: KaplanLaw | None = None) -> KaplanLaw:
    """Fit the four coefficients: Huber loss (δ = 10⁻³) on log losses, L-BFGS from many starts.

    The paper does not say how it fitted them; here it is done as for Chinchilla's form, so that the two compare.

    Args:
        runs: at least four, with at least two different N and two different D.
        start: search from this law alone.

    Raises:
        UsageError: too few runs.
    """
    if len(runs) < 4 or len(np.unique(runs.parameters)) < 2 or len(np.unique(runs.tokens)) < 2:
        raise UsageError(
            f"Kaplan's loss has 4 coefficients; {len(runs)} runs with {len(np.unique(runs.parameters))} different N "
            f"and {len(np.unique(runs.tokens))} different D cannot determine them (4, 2 and 2 are needed)"
        )
    log_n, log_d, log_loss = np.log(runs.parameters), np.log(runs.tokens), np.log(runs.loss)
    center_n, center_d = log_n.mean(), log_d.mean()
    if start is None:
        shares, ratios, alphas = [-3, -1, 0, 1, 3], [0.3, 0.6, 1.0, 1.5, 2.5], [0.04, 0.08, 0.15, 0.3, 0.6]
        starts = np.array([
            [log_loss.mean() / alpha_d + share, log_loss.mean() / alpha_d - share, ratio, alpha_d]
            for share, ratio, alpha_d in product(shares, ratios, alphas)
        ])  # fmt: skip
    else:
        ratio = start.alpha_n / start.alpha_d
        starts = np.array(
            [[ratio * (np.log(start.n_c) - center_n), np.log(start.d_c) - center_d, ratio, start.alpha_d]]
        )
    n, d, ratio, alpha_d = fit_log_losses(
        lambda coefficients: log_loss_and_derivatives(coefficients, log_n - center_n, log_d - center_d),
        log_loss,
        starts,
        bounds=[(-300, 300), (-300, 300), (0.02, 20), (0.005, 4)],
    )
    return KaplanLaw(
        n_c=float(np.exp(n / ratio + center_n)),
        d_c=float(np.exp(d + center_d)),
        alpha_n=float(ratio * alpha_d),
        alpha_d=float(alpha_d),
    )
