"""One table of runs, all methods: fits, confidence intervals, predictions for larger budgets, held-out errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting.bootstrap import Bootstrap, bootstrap
from cs336_scaling.fitting.extrapolation import HeldOut, extrapolate
from cs336_scaling.fitting.iso_flops import IsoFlopFit
from cs336_scaling.fitting.methods import DESCRIPTIONS, METHODS, ScalingLaw
from cs336_scaling.fitting.runs import Runs


@dataclass(frozen=True)
class MethodResult:
    """What one method says of one table of runs; `held_out` is None where the runs do not allow it."""

    name: str
    law: ScalingLaw
    resampled: Bootstrap
    held_out: HeldOut | None

    def row(self, target: float, confidence: float) -> dict[str, Any]:
        """The result for one target, as plain numbers; intervals have names that end in `_low` and `_high`."""
        parameters, tokens = self.law.optimal(target)
        shown = {
            "parameters": parameters, "tokens": tokens, "loss": self.law.optimal_loss(target),
            "exponent_parameters": self.law.exponents[0], "exponent_tokens": self.law.exponents[1],
        }  # fmt: skip
        row: dict[str, Any] = {"method": DESCRIPTIONS[self.name], "target_flops": target}
        for name, value in shown.items():
            interval = self.resampled.interval(_key(name, target), confidence)
            row |= {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row["held_out_error"] = None if self.held_out is None else self.held_out.mean_relative_error
        return row


def _key(name: str, target: float) -> str:
    return name if name.startswith("exponent") else f"{name} at {target:g}"


def _statistics(runs: Runs, method: str, law: ScalingLaw, targets: Sequence[float]) -> dict[str, float]:
    # A parametric refit starts at the whole sample's coefficients: one L-BFGS run instead of many.
    refit = METHODS[method](runs) if isinstance(law, IsoFlopFit) else METHODS[method](runs, start=law)
    values = dict(zip(("exponent_parameters", "exponent_tokens"), refit.exponents, strict=True))
    for target in targets:
        found = (*refit.optimal(target), refit.optimal_loss(target))
        values |= {_key(name, target): v for name, v in zip(("parameters", "tokens", "loss"), found, strict=True)}
    return values


def study_runs(
    runs: Runs,
    methods: Sequence[str],
    targets: Sequence[float],
    *,
    samples: int = 200,
    held_out: int = 1,
    seed: int = 0,
) -> tuple[dict[str, MethodResult], dict[str, str]]:
    """Fit a table of runs by every method that it allows.

    Args:
        runs: what was measured.
        methods: names of `METHODS`.
        targets: compute budgets to predict for, in FLOPs.
        samples: bootstrap resamples; isoFLOP profiles keep their budgets.
        held_out: how many of the largest budgets are predicted from the others.
        seed: of the resampling.

    Returns:
        Results by method, and for each method that does not apply the reason.

    Raises:
        UsageError: no method applies, or one has no such name.
    """
    for method in methods:
        if method not in METHODS:
            raise UsageError(f"the method is {method!r}; allowed are {', '.join(METHODS)}")
    results, reasons = {}, {}
    for method in methods:
        try:
            law = METHODS[method](runs)
        except UsageError as error:
            reasons[method] = str(error)
            continue
        strata = runs.budget_of_each() if isinstance(law, IsoFlopFit) else None
        resampled = bootstrap(
            runs, partial(_statistics, method=method, law=law, targets=targets),
            samples=samples, seed=seed, strata=strata,
        )  # fmt: skip
        try:
            unseen = extrapolate(runs, method, held_out=held_out)
        except UsageError:
            unseen = None
        results[method] = MethodResult(method, law, resampled, unseen)
    if not results:
        raise UsageError("; ".join(reasons.values()))
    return results, reasons


def default_targets(runs: Runs) -> tuple[float, float]:
    """Ten and a hundred times the largest budget, to one digit."""
    power = 10.0 ** math.floor(math.log10(runs.flops.max()))
    rounded = round(runs.flops.max() / power) * power
    return 10 * rounded, 100 * rounded
