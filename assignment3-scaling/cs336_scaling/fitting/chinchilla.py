"""Chinchilla's parametric loss L(N, D) = E + A/N^α + B/D^β, and the compute-optimal N and D that follow from it.

Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556), approach 3: equations 2 to 4.
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
class ChinchillaLaw:
    """L(N, D) = E + A/N^α + B/D^β, in nats per token."""

    irreducible: float  # E
    a: float
    b: float
    alpha: float
    beta: float
    method_name: ClassVar[str] = "parametric loss E + A/N^α + B/D^β (Hoffmann et al. 2022, approach 3)"

    def loss(self, parameters: Float[np.ndarray, "*n"], tokens: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """The predicted loss of models with N parameters after D tokens."""
        return self.irreducible + self.a * parameters**-self.alpha + self.b * tokens**-self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """(N_opt, D_opt) for a compute budget under C = 6·N·D (equation 4): N = G·(C/6)^(β/(α+β))."""
        product_of_both = flops / FLOPS_PER_PARAMETER_AND_TOKEN
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = g * product_of_both ** (self.beta / (self.alpha + self.beta))
        return parameters, product_of_both / parameters

    def optimal_loss(self, flops: float) -> float:
        """The predicted loss of the compute-optimal model."""
        return float(self.loss(*self.optimal(flops)))

    @property
    def exponents(self) -> tuple[float, float]:
        """The exponents of C in N_opt and D_opt: β/(α+β) and α/(α+β)."""
        return self.beta / (self.alpha + self.beta), self.alpha / (self.alpha + self.beta)

    def coefficients(self) -> dict[str, float]:
        """The coefficients under the paper's names."""
        return {"E": self.irreducible, "A": self.a, "B": self.b, "α": self.alpha, "β": self.beta}


PUBLISHED = ChinchillaLaw(irreducible=1.69, a=406.4, b=410.7, alpha=0.34, beta=0.28)
"""The coefficients of Hoffmann et al. 2022, equation 10."""


def log_loss_and_derivatives(
    coefficients: Float[np.ndarray, "5"], log_n: Float[np.ndarray, " runs"], log_d: Float[np.ndarray, " runs"]
) -> tuple[Float[np.ndarray, " runs"], Float[np.ndarray, "runs 5"]]:
    """log(exp(a − α·log N) + exp(b − β·log D) + exp(e)) and its derivatives by (a, b, e, α, β).

    The derivative of a log-sum-exp by one of its terms is that term's share of the sum.
    """
    a, b, e, alpha, beta = coefficients
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    log_loss = np.logaddexp(np.logaddexp(terms[0], terms[1]), terms[2])
    shares = np.exp(terms - log_loss)
    return log_loss, np.stack([*shares, -log_n * shares[0], -log_d * shares[1]], axis=1)


def fit_chinchilla(runs: Runs, start: ChinchillaLaw | None = None) -> ChinchillaLaw:
    """Fit the five coefficients: Huber loss (δ = 10⁻³) on log losses, L-BFGS from many starts.

    Log N and log D are centered for the search, which makes its coefficients almost independent of each other.

    Args:
        runs: at least five, with at least two different N and two different D.
        start: search from this law alone (a bootstrap's refits start at the whole sample's fit).

    Raises:
        UsageError: too few runs.
    """
    if len(runs) < 5 or len(np.unique(runs.parameters)) < 2 or len(np.unique(runs.tokens)) < 2:
        raise UsageError(
            f"Chinchilla's loss has 5 coefficients; {len(runs)} runs with {len(np.unique(runs.parameters))} different "
            f"N and {len(np.unique(runs.tokens))} different D cannot determine them (5, 2 and 2 are needed)"
        )
    log_n, log_d, log_loss = np.log(runs.parameters), np.log(runs.tokens), np.log(runs.loss)
    center_n, center_d = log_n.mean(), log_d.mean()
    if start is None:
        lowest = log_loss.min()
        shifts = np.log([0.05, 0.2, 0.6])  # a term's size, at the center, against the lowest loss
        floors = np.log([0.2, 0.5, 0.8, 0.95])
        exponents = [0.15, 0.3, 0.6, 1.2]
        starts = np.array([
            [lowest + a, lowest + b, lowest + e, alpha, beta]
            for a, b, e, alpha, beta in product(shifts, shifts, floors, exponents, exponents)
        ])  # fmt: skip
    else:
        starts = np.array([[
            np.log(start.a) - start.alpha * center_n, np.log(start.b) - start.beta * center_d,
            np.log(start.irreducible), start.alpha, start.beta,
        ]])  # fmt: skip
    a, b, e, alpha, beta = fit_log_losses(
        lambda coefficients: log_loss_and_derivatives(coefficients, log_n - center_n, log_d - center_d),
        log_loss,
        starts,
        bounds=[(-30, 30), (-30, 30), (-30, 10), (0.01, 4), (0.01, 4)],
    )
    return ChinchillaLaw(
        irreducible=float(np.exp(e)),
        a=float(np.exp(a + alpha * center_n)),
        b=float(np.exp(b + beta * center_d)),
        alpha=float(alpha),
        beta=float(beta),
    )
