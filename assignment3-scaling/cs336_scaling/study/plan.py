"""The study itself: which runs it makes, one decision after the other.

Every decision follows from the results of the runs before it and from nothing else: no clock, no chance. So a study
that was killed makes the same decisions again, finds the runs it had already paid for, and goes on.

1. A sweep of the learning rate at one small size; 1/width carries the best one over to the others.
2. IsoFLOP profiles from small to large compute, a few sizes each, centered where the profile before has its minimum,
   scaled by the square root of the compute. A profile whose minimum is not inside gets another size at that end.
3. At the second profile, a check of the transferred rate at the best size: half and double. If one of them is better,
   the profiles after it use it.

The budget is shared so that profiles grow by a constant factor; what a profile really costs, measured on the runs
before, decides how many FLOPs its share buys.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cs336_basics.command_line import UsageError
from cs336_scaling.client.answers import Experiment
from cs336_scaling.fitting.iso_flops import lowest_run, quadratic_minimum
from cs336_scaling.fitting.runs import Runs
from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.schemas.limits import BUDGET_2026_SECONDS
from cs336_scaling.study.sizes import LADDER, Rung, flops_of, nearest_rung, window

RunAll = Callable[[Sequence[TrainingConfig]], Sequence[Experiment]]
Say = Callable[[str], None]

RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)
"""Peak learning rates of the sweep, at the reference width."""
LEAST_GROWTH = 1.3
"""A profile with less compute than this many times the one before is not made."""
MOST_EXTENSIONS = 3
CHECKED_PROFILE = 1
CHECK_FACTORS = (0.5, 2.0)
"""In the second profile, unless it is the last, the best size is trained again with half and double the rate."""


def require_budget(budget: float, unit: str) -> None:
    """Refuse a budget that is no number above 0.

    Raises:
        UsageError: naming it.
    """
    if not (budget > 0 and math.isfinite(budget)):
        raise UsageError(f"budget is {budget:g}; allowed is any number of {unit} above 0")


@dataclass(frozen=True)
class StudyPlan:
    """The size of a study.

    Attributes:
        budget: what all runs may cost together, in `unit`.
        unit: "seconds" of training, summed over workers, or "FLOPs".
        profiles: number of compute budgets.
        growth: factor from one profile's cost to the next's.
        sizes: model sizes of a profile, before any are added.
        rates: learning rates of the sweep.
        first_flops: compute of the sweep, small enough for any machine.
        first_parameters: size of the sweep's model, near the best for its compute; the first profile's center follows.
    """

    budget: float
    unit: Literal["seconds", "FLOPs"] = "seconds"
    profiles: int = 4
    growth: float = 2.5
    sizes: int = 5
    rates: tuple[float, ...] = RATES
    first_flops: float = 5e10
    first_parameters: float = 40_000.0

    def __post_init__(self) -> None:
        require_budget(self.budget, self.unit)
        if self.profiles < 2 or self.sizes < 3:
            raise UsageError(f"{self.profiles} profiles of {self.sizes} sizes; at least 2 of 3 are needed for a fit")


@dataclass(frozen=True)
class Trained:
    """One run of the study and why it was made: "learning rate", "profile", "extension" or "check"."""

    purpose: str
    profile: int | None
    reference_lr: float
    rung: Rung
    experiment: Experiment

    @property
    def flops(self) -> float:
        """Training FLOPs."""
        return flops_of(self.experiment.training_config)

    @property
    def loss(self) -> float | None:
        """Final validation loss, or None if the run failed."""
        return self.experiment.loss


@dataclass
class Study:
    """What was done and decided; `follow` fills it."""

    plan: StudyPlan
    trained: list[Trained] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    reference_lr: float = math.nan

    def cost(self) -> float:
        """What all runs have cost so far, in the plan's unit."""
        if self.plan.unit == "FLOPs":
            return sum(run.flops for run in self.trained)
        return sum(run.experiment.charged_seconds or 0.0 for run in self.trained)

    def seconds_per_flop(self, rung: Rung) -> float:
        """What a size costs: that of the latest run of the nearest size; 0 before the first run."""
        if not self.trained:
            return 0.0
        latest = min(self.trained[::-1], key=lambda run: abs(run.rung.index - rung.index))
        return (latest.experiment.charged_seconds or 1.0) / latest.flops

    def price(self, rung: Rung) -> float:
        """Cost per FLOP at a size, in the plan's unit."""
        return 1.0 if self.plan.unit == "FLOPs" else self.seconds_per_flop(rung)

    def profile_runs(self) -> list[Trained]:
        """The profiles' successful runs, by compute and size: what the scaling laws are fitted to.

        Runs that check the learning rate do not count: only one size has them.
        """
        runs = [run for run in self.trained if run.purpose in ("profile", "extension") and run.loss is not None]
        return sorted(runs, key=lambda run: (run.profile, run.rung.index))

    def table(self) -> Runs:
        """The profiles as a table for the fits."""
        runs = self.profile_runs()
        return Runs(
            np.array([float(run.rung.parameters) for run in runs]),
            np.array([float(run.experiment.training_config.total_train_tokens) for run in runs]),
            np.array([run.flops for run in runs]),
            np.array([run.loss for run in runs]),
        )


def follow(plan: StudyPlan, run_all: RunAll, say: Say = print) -> Study:
    """Make the study's runs.

    Args:
        plan: its size.
        run_all: trains configurations and waits for them; those it has trained before it only looks up.
        say: is told each decision.

    Raises:
        UsageError: too few runs succeed for a fit.
    """
    study = Study(plan)

    def decide(sentence: str) -> None:
        study.decisions.append(sentence)
        say(sentence)

    _sweep(study, run_all, decide)
    flops, center = plan.first_flops, plan.first_parameters
    for profile in range(plan.profiles):
        affordable = _flops_of_share(study, window(nearest_rung(center), plan.sizes), profile)
        if profile > 0 and affordable < LEAST_GROWTH * flops:
            decide(f"Profile {profile + 1} is left out: what remains buys hardly more compute than the one before had.")
            break
        flops, previous = affordable, flops
        rungs = window(nearest_rung(center * math.sqrt(flops / previous)), plan.sizes)
        decide(
            f"Profile {profile + 1}: {flops:.2e} FLOPs each for {len(rungs)} sizes from {rungs[0].parameters:,} to "
            f"{rungs[-1].parameters:,} parameters."
        )
        _train(study, run_all, [(rung, study.reference_lr) for rung in rungs], flops, "profile", profile)
        center = _bracket(study, run_all, flops, profile, decide)
        if profile == CHECKED_PROFILE < plan.profiles - 1:
            _check_rate(study, run_all, flops, profile, decide)
    decide(f"Cost in all: {study.cost():,.4g} of {plan.budget:,.4g} {plan.unit}.")
    return study


def _sweep(study: Study, run_all: RunAll, decide: Say) -> None:
    plan, rung = study.plan, nearest_rung(study.plan.first_parameters)
    _train(study, run_all, [(rung, rate) for rate in plan.rates], plan.first_flops, "learning rate", None)
    finished = [run for run in study.trained if run.loss is not None]
    if not finished:
        raise UsageError(f"no run of the learning-rate sweep succeeded: {study.trained[0].experiment.message}")
    best = min(finished, key=lambda run: run.loss)
    study.reference_lr = best.reference_lr
    edge = " It is the sweep's end." if best.reference_lr in (plan.rates[0], plan.rates[-1]) else ""
    losses = ", ".join(f"{run.reference_lr:g}: {run.loss:.4f}" for run in finished)
    decide(
        f"Learning rate {study.reference_lr:g} at width 64 is best at {rung.parameters:,} parameters ({losses}).{edge}"
    )


def _flops_of_share(study: Study, rungs: Sequence[Rung], profile: int) -> float:
    """FLOPs of each run of a profile, so that it costs its share of what is left."""
    plan = study.plan
    weights = [plan.growth**later for later in range(plan.profiles - profile)]
    if profile <= CHECKED_PROFILE < plan.profiles - 1:
        weights[CHECKED_PROFILE - profile] *= 1 + len(CHECK_FACTORS) / len(rungs)
    # Extensions and the spread of run times need room.
    share = 0.85 * max(0.0, plan.budget - study.cost()) / sum(weights)
    if profile == CHECKED_PROFILE < plan.profiles - 1:
        share /= 1 + len(CHECK_FACTORS) / len(rungs)
    return share / sum(study.price(rung) for rung in rungs)


def _train(
    study: Study, run_all: RunAll, runs: Sequence[tuple[Rung, float]], flops: float, purpose: str, profile: int | None
) -> None:
    """Train these sizes at these rates, the largest first: it takes longest and should not start last."""
    ordered = sorted(runs, key=lambda one: -one[0].index)
    configs = []
    for rung, rate in ordered:
        expected = study.seconds_per_flop(rung) * flops
        limit = min(BUDGET_2026_SECONDS, float(math.ceil(120 + 10 * expected)))
        configs.append(rung.config(flops, rate, limit))
    for (rung, rate), experiment in zip(ordered, run_all(configs), strict=True):
        study.trained.append(Trained(purpose, profile, rate, rung, experiment))


def _bracket(study: Study, run_all: RunAll, flops: float, profile: int, decide: Say) -> float:
    """Add sizes until the profile's minimum lies inside, and say where it lies."""
    for _ in range(MOST_EXTENSIONS):
        runs = [run for run in study.profile_runs() if run.profile == profile]
        table = study.table().select(np.array([run.profile == profile for run in study.profile_runs()]))
        lowest = lowest_run(table) if len(runs) > 1 else None
        if lowest is None or lowest.inside:
            break
        ordered = sorted(run.rung.index for run in runs)
        index = ordered[0] - 1 if lowest.parameters == min(table.parameters) else ordered[-1] + 1
        if not 0 <= index < len(LADDER):
            break
        rung = LADDER[index]
        if study.cost() + study.price(rung) * flops > study.plan.budget:
            break
        decide(f"The lowest loss is at the end of the profile; adding {rung.parameters:,} parameters.")
        _train(study, run_all, [(rung, study.reference_lr)], flops, "extension", profile)
    runs = [run.profile == profile for run in study.profile_runs()]
    if sum(runs) < 2:
        raise UsageError(f"fewer than two runs of profile {profile + 1} succeeded; a larger budget may help")
    table = study.table().select(np.array(runs))
    parabola = quadratic_minimum(table)
    optimum = parabola if parabola is not None and parabola.inside else lowest_run(table)
    decide(f"Profile {profile + 1} has its minimum near {optimum.parameters:,.0f} parameters, loss {optimum.loss:.4f}.")
    return optimum.parameters


def _check_rate(study: Study, run_all: RunAll, flops: float, profile: int, decide: Say) -> None:
    best = min((run for run in study.profile_runs() if run.profile == profile), key=lambda run: run.loss)
    rates = [(best.rung, study.reference_lr * by) for by in CHECK_FACTORS]
    _train(study, run_all, rates, flops, "check", profile)
    losses = [run.loss for run in study.trained[-len(rates) :]]
    shown = ["failed" if loss is None else f"{loss:.4f}" for loss in losses]
    better = [by for by, loss in zip(CHECK_FACTORS, losses, strict=True) if loss is not None and loss < best.loss]
    decide(
        f"Check of the rate at {best.rung.parameters:,} parameters: half {shown[0]}, transferred {best.loss:.4f}, "
        f"double {shown[1]}." + (f" From here on {better[0]:g} times the rate is used." if better else " It holds.")
    )
    if better:
        study.reference_lr *= better[0]
