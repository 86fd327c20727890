"""What the page shows, worked out from the API's own answers; the page only draws it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import numpy as np
from pydantic import BaseModel

from cs336_scaling.compute import training_flops
from cs336_scaling.fitting.iso_flops import quadratic_minimum
from cs336_scaling.fitting.runs import Runs
from cs336_scaling.schemas.edition_2025 import PreviousRun
from cs336_scaling.schemas.edition_2026 import ArchitectureConfig, Experiment, FinalSubmission
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH

SAME_BUDGET = 0.1
"""Runs whose training FLOPs differ by less than this share, from one to the next, are drawn as one isoFLOP curve."""
POINTS_OF_A_CURVE = 60


class BudgetView(BaseModel):
    """The budget bar; `used` does not contain `reserved`."""

    used: float
    reserved: float
    left: float
    total: float
    unit: Literal["s", "FLOPs"]


class RunView(BaseModel):
    """One row of the table, one curve; `number` counts from 1 in the order of submission."""

    number: int
    name: str
    status: str
    queue_position: int | None = None
    parameters: int
    shape: str
    batch_size: int
    learning_rate: float
    tokens: float
    compute: float
    loss: float | None
    val_losses: list[float] = []
    val_tokens: list[float] = []
    progress: float = 1.0
    runtime_seconds: float | None = None
    cost: float | None
    reserved: float = 0.0
    message: str = ""


class ProfileView(BaseModel):
    """The completed runs of one compute budget, the parabola in log N through them, and its minimum if inside."""

    label: str
    parameters: list[float]
    losses: list[float]
    curve_parameters: list[float] = []
    curve_losses: list[float] = []
    optimum: tuple[float, float] | None = None


class FinalView(BaseModel):
    """The final submission that counts."""

    parameters: int
    shape: str
    tokens: float
    predicted_final_loss: float
    submitted_at: datetime


class DashboardData(BaseModel):
    """All that the page shows of one key and one edition."""

    edition: Literal["2025", "2026"]
    budget: BudgetView
    runs: list[RunView]
    best_number: int | None
    profiles: list[ProfileView]
    final_submission: FinalView | None = None


def view_2026(total_seconds: float, experiments: Sequence[Experiment], final: FinalSubmission | None) -> DashboardData:
    """The page of the 2026 edition. The budget is summed up from the experiments, so that the page is of one moment."""
    runs = [_run_2026(number, experiment) for number, experiment in enumerate(experiments, start=1)]
    used = sum(experiment.charged_seconds or 0.0 for experiment in experiments)
    reserved = sum(experiment.reserved_seconds for experiment in experiments)
    bar = BudgetView(used=used, reserved=reserved, left=total_seconds - used - reserved, total=total_seconds, unit="s")
    return DashboardData(
        edition="2026",
        budget=bar,
        runs=runs,
        best_number=_best(runs),
        profiles=profiles(runs),
        final_submission=None if final is None else _final(final),
    )


def view_2025(flops_used: float, total_flops: float, previous_runs: Sequence[PreviousRun]) -> DashboardData:
    """The page of the 2025 edition."""
    runs = [_run_2025(number, run) for number, run in enumerate(previous_runs, start=1)]
    left = max(0.0, total_flops - flops_used)
    return DashboardData(
        edition="2025",
        budget=BudgetView(used=flops_used, reserved=0.0, left=left, total=total_flops, unit="FLOPs"),
        runs=runs,
        best_number=_best(runs),
        profiles=profiles(runs),
    )


def _run_2026(number: int, experiment: Experiment) -> RunView:
    config = experiment.training_config
    tokens_per_step = SEQUENCE_LENGTH * config.train_batch_size
    steps_seen = experiment.val_steps[-1] if experiment.val_steps else 0
    return RunView(
        number=number,
        name=f"#{number} {experiment.experiment_id[:8]}",
        status=experiment.status_type,
        queue_position=experiment.queue_position,
        parameters=config.architecture_config.num_parameters,
        shape=_shape(config.architecture_config),
        batch_size=config.train_batch_size,
        learning_rate=config.optimizer_config.lr_scheduler.peak_value,
        tokens=config.total_train_tokens,
        compute=training_flops(config),
        loss=experiment.final_val_loss,
        val_losses=experiment.val_losses,
        val_tokens=[step * tokens_per_step for step in experiment.val_steps],
        progress=steps_seen / config.num_steps,
        runtime_seconds=experiment.runtime_seconds,
        cost=experiment.charged_seconds,
        reserved=experiment.reserved_seconds,
        message=experiment.message,
    )


def _run_2025(number: int, run: PreviousRun) -> RunView:
    return RunView(
        number=number,
        name=f"#{number}",
        status="completed",
        parameters=run.num_parameters,
        shape=f"{run.num_layers} × {run.d_model}",
        batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        tokens=run.num_tokens,
        compute=run.train_flops,
        loss=run.loss,
        cost=run.train_flops,
    )


def _shape(architecture: ArchitectureConfig) -> str:
    return f"{architecture.num_hidden_layers} × {architecture.hidden_size}"


def _final(final: FinalSubmission) -> FinalView:
    architecture = final.training_config.architecture_config
    return FinalView(
        parameters=architecture.num_parameters,
        shape=_shape(architecture),
        tokens=final.training_config.total_train_tokens,
        predicted_final_loss=final.predicted_final_loss,
        submitted_at=final.submitted_at,
    )


def _best(runs: Sequence[RunView]) -> int | None:
    completed = [run for run in runs if run.loss is not None]
    return min(completed, key=lambda run: run.loss).number if completed else None


def profiles(runs: Sequence[RunView]) -> list[ProfileView]:
    """IsoFLOP curves of the completed runs, from the smallest budget."""
    completed = [run for run in runs if run.loss is not None and run.loss > 0]
    if not completed:
        return []
    table = Runs(
        *(np.array([getattr(run, name) for run in completed], dtype=float) for name in ("parameters", "tokens")),
        *(np.array([getattr(run, name) for run in completed], dtype=float) for name in ("compute", "loss")),
    )
    return [_profile(profile) for profile in table.by_budget(SAME_BUDGET)]


def _profile(profile: Runs) -> ProfileView:
    flops = float(np.median(profile.flops))
    view = ProfileView(
        label=f"{flops:.2g} FLOPs".replace("e+", "e"),
        parameters=profile.parameters.tolist(),
        losses=profile.loss.tolist(),
    )
    minimum = quadratic_minimum(profile)
    if minimum is None:
        return view
    x = np.geomspace(profile.parameters.min(), profile.parameters.max(), POINTS_OF_A_CURVE)
    y = minimum.loss + minimum.curvature / 2 * np.log(x / minimum.parameters) ** 2
    return view.model_copy(
        update={
            "curve_parameters": x.tolist(),
            "curve_losses": y.tolist(),
            "optimum": (minimum.parameters, minimum.loss) if minimum.inside else None,
        }
    )
