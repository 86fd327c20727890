"""IsoFLOP profiles: at each compute budget the best model size, then power laws N_opt(C) and D_opt(C).

Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556), approach 2. Two ways to find the best size of a budget: the run
with the lowest loss, as the course's handout has it, or the minimum of a parabola through loss against log N, as the
paper has it. The first moves in steps of the sizes that were tried; the second needs three sizes around the minimum.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting.power_law import PowerLaw, SaturatingPowerLaw, fit_power_law, fit_saturating_power_law
from cs336_scaling.fitting.runs import Runs

IsoFlopMethod = Literal["lowest", "quadratic"]

METHOD_NAMES: dict[str, str] = {
    "lowest": "isoFLOP, lowest run of each budget",
    "quadratic": "isoFLOP, quadratic minimum in log N",
}


@dataclass(frozen=True)
class Optimum:
    """The best model of one compute budget.

    Attributes:
        flops: the budget C.
        parameters: N_opt.
        tokens: D_opt.
        loss: the loss there: that of the lowest run, or of the parabola's minimum.
        curvature: second derivative of the loss by log N at the minimum; None for the lowest run.
        inside: whether the minimum lies between the smallest and the largest model tried.
    """

    flops: float
    parameters: float
    tokens: float
    loss: float
    curvature: float | None
    inside: bool


@dataclass(frozen=True)
class IsoFlopFit:
    """What `fit_isoflops` found.

    Attributes:
        method: how the optimum of each budget was found.
        optima: one for each budget, from the smallest.
        parameters_law: N_opt as a power law of C.
        tokens_law: D_opt as a power law of C.
        loss_law: the loss at the optimum against C, or None with fewer than three budgets.
        left_out: budgets (FLOPs) without an optimum: too few sizes, or no minimum in the parabola.
    """

    method: IsoFlopMethod
    optima: tuple[Optimum, ...]
    parameters_law: PowerLaw
    tokens_law: PowerLaw
    loss_law: SaturatingPowerLaw | None
    left_out: tuple[float, ...] = ()

    @property
    def method_name(self) -> str:
        """The method in words."""
        return METHOD_NAMES[self.method]

    @property
    def exponents(self) -> tuple[float, float]:
        """The exponents of C in N_opt and D_opt."""
        return self.parameters_law.exponent, self.tokens_law.exponent

    def optimal(self, flops: float) -> tuple[float, float]:
        """(N_opt, D_opt) for a compute budget, each by its power law."""
        return self.parameters_law(flops), self.tokens_law(flops)

    def optimal_loss(self, flops: float) -> float:
        """The loss of the compute-optimal model, by E + a·C^(−b) through the budgets' optima; NaN if there is none."""
        return float("nan") if self.loss_law is None else self.loss_law(flops)

    def coefficients(self) -> dict[str, float]:
        """The coefficients of N_opt = k_N·C^a and D_opt = k_D·C^b."""
        return {
            "k_N": self.parameters_law.coefficient, "a": self.parameters_law.exponent,
            "k_D": self.tokens_law.coefficient, "b": self.tokens_law.exponent,
        }  # fmt: skip


def lowest_run(profile: Runs) -> Optimum | None:
    """The run with the lowest loss among those of one budget; None if only one size was tried."""
    if len(np.unique(profile.parameters)) < 2:
        return None
    best = int(np.argmin(profile.loss))
    n = float(profile.parameters[best])
    return Optimum(
        float(np.median(profile.flops)), n, float(profile.tokens[best]), float(profile.loss[best]),
        curvature=None, inside=bool(profile.parameters.min() < n < profile.parameters.max()),
    )  # fmt: skip


def quadratic_minimum(profile: Runs, half_width: float | None = None) -> Optimum | None:
    """The minimum of the parabola in log N through one budget's losses; None if it has none near the sizes tried.

    A nearly straight line of losses has its minimum anywhere; one that lies further outside the sizes than these reach
    (in log N) is none.

    Args:
        profile: runs of one budget.
        half_width: if given, only sizes within this factor of the lowest run's are used (at least three): far from its
            minimum, a profile is not a parabola.
    """
    log_n = np.log(profile.parameters)
    if half_width is not None:
        distance = np.abs(log_n - log_n[np.argmin(profile.loss)])
        sizes = np.unique(distance)
        within = distance <= max(np.log(half_width), sizes[min(2, len(sizes) - 1)])
        profile, log_n = profile.select(within), log_n[within]
    if len(np.unique(log_n)) < 3:
        return None
    center = log_n.mean()
    a, b, c = np.polyfit(log_n - center, profile.loss, 2)
    if a <= 0:
        return None
    at = center - b / (2 * a)
    reach = np.ptp(log_n)
    if not log_n.min() - reach <= at <= log_n.max() + reach:
        return None
    # Within one budget log D falls in a line with log N: of slope −1 if C = 6·N·D.
    slope, intercept = np.polyfit(log_n - center, np.log(profile.tokens), 1)
    return Optimum(
        float(np.median(profile.flops)), float(np.exp(at)), float(np.exp(intercept + slope * (at - center))),
        float(c - b**2 / (4 * a)), curvature=float(2 * a), inside=bool(log_n.min() <= at <= log_n.max()),
    )  # fmt: skip


def fit_isoflops(
    runs: Runs, method: IsoFlopMethod = "quadratic", *, tolerance: float = 0.05, half_width: float | None = None
) -> IsoFlopFit:
    """Find each budget's best model, and fit N_opt = k·C^a and D_opt = k'·C^b by least squares in log space.

    Args:
        runs: runs in profiles of equal compute.
        method: "lowest" or "quadratic".
        tolerance: runs whose FLOPs differ by less than this share, from one to the next, are of one budget.
        half_width: see `quadratic_minimum`.

    Raises:
        UsageError: another method, or fewer than two budgets with an optimum.
    """
    if method not in get_args(IsoFlopMethod):
        raise UsageError(f"the method is {method!r}; allowed are {', '.join(get_args(IsoFlopMethod))}")
    optima, left_out = [], []
    for profile in runs.by_budget(tolerance):
        optimum = lowest_run(profile) if method == "lowest" else quadratic_minimum(profile, half_width)
        if optimum is None:
            left_out.append(float(np.median(profile.flops)))
        else:
            optima.append(optimum)
    if len(optima) < 2:
        raise UsageError(
            f"{METHOD_NAMES[method]}: an optimum was found for {len(optima)} of {len(optima) + len(left_out)} compute "
            "budgets; at least 2 are needed"
            + f", each with {'3 or more sizes around a minimum' if method == 'quadratic' else '2 or more sizes'}"
        )
    flops = np.array([optimum.flops for optimum in optima])
    loss = np.array([optimum.loss for optimum in optima])
    return IsoFlopFit(
        method,
        tuple(optima),
        fit_power_law(flops, np.array([optimum.parameters for optimum in optima])),
        fit_power_law(flops, np.array([optimum.tokens for optimum in optima])),
        fit_saturating_power_law(flops, loss) if len(optima) >= 3 and np.all(loss > 0) else None,
        tuple(left_out),
    )
