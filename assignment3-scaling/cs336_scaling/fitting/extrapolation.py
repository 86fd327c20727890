"""How well a law fitted to small budgets foretells the largest ones: the error on runs it has not seen."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting.iso_flops import IsoFlopFit, lowest_run, quadratic_minimum
from cs336_scaling.fitting.methods import METHODS
from cs336_scaling.fitting.runs import Runs


@dataclass(frozen=True)
class HeldOut:
    """Predictions for the largest budgets by a law fitted to the smaller ones.

    Attributes:
        method_name: the law's method, in words.
        flops: C of what was predicted: every held-out run for a parametric loss, each budget's optimum for isoFLOPs.
        predicted: predicted losses.
        measured: measured losses.
        growth: the largest held-out budget over the largest one that was fitted.
    """

    method_name: str
    flops: Float[np.ndarray, " runs"]
    predicted: Float[np.ndarray, " runs"]
    measured: Float[np.ndarray, " runs"]
    growth: float

    @property
    def relative_errors(self) -> Float[np.ndarray, " runs"]:
        """Predicted over measured, minus 1."""
        return self.predicted / self.measured - 1

    @property
    def mean_relative_error(self) -> float:
        """The mean of the relative errors' sizes."""
        return float(np.abs(self.relative_errors).mean())


def split_by_budget(runs: Runs, held_out: int = 1, tolerance: float = 0.05) -> tuple[Runs, Runs]:
    """(The runs of the smaller budgets, those of the `held_out` largest).

    Raises:
        UsageError: fewer than two budgets would be left to fit.
    """
    budget = runs.budget_of_each(tolerance)
    budgets = int(budget.max()) + 1 if len(runs) else 0
    if not 1 <= held_out <= budgets - 2:
        raise UsageError(
            f"{held_out} held-out budgets of {budgets}; allowed are 1 up to all but 2, which are needed to fit"
        )
    held = budget >= budgets - held_out
    return runs.select(~held), runs.select(held)


def extrapolate(runs: Runs, method: str, *, held_out: int = 1, tolerance: float = 0.05) -> HeldOut:
    """Fit by `method` (a name of `METHODS`) without the largest budgets, and compare its predictions with them.

    Raises:
        UsageError: too few budgets or runs for the method.
    """
    seen, unseen = split_by_budget(runs, held_out, tolerance)
    law = METHODS[method](seen)
    growth = float(unseen.flops.max() / seen.flops.max())
    if not isinstance(law, IsoFlopFit):
        return HeldOut(law.method_name, unseen.flops, law.loss(unseen.parameters, unseen.tokens), unseen.loss, growth)
    find = lowest_run if law.method == "lowest" else quadratic_minimum
    optima = [optimum for profile in unseen.by_budget(tolerance) if (optimum := find(profile)) is not None]
    if not optima or law.loss_law is None:
        raise UsageError(
            f"{law.method_name}: {len(law.optima)} fitted and {len(optima)} held-out budgets have an optimum; at least "
            "3 and 1 are needed to extrapolate the loss"
        )
    flops = np.array([optimum.flops for optimum in optima])
    return HeldOut(law.method_name, flops, law.loss_law(flops), np.array([optimum.loss for optimum in optima]), growth)
