"""The planner's plots: losses against size, learning rates against size, and how predictions did."""

import numpy as np
from matplotlib.figure import Figure

from cs336_basics.curves import figure_png, tidy
from cs336_scaling.planner.strategy import Plan, Step

STAGE_COLORS = {
    "probe": "#bbbbbb", "sweep": "#b3762f", "transfer": "#3f8f5f", "profile": "#2f6db3", "refinement": "#8c1515",
}  # fmt: skip


def _by_stage(steps: list[Step]) -> dict[str, list[Step]]:
    return {stage: found for stage in STAGE_COLORS if (found := [step for step in steps if step.stage == stage])}


def plot_losses(plan: Plan) -> bytes:
    """Loss of every run against training compute, by stage, and the prediction for the target."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for stage, steps in _by_stage([step for step in plan.steps if not step.problem]).items():
        flops = [6 * step.settings.blocks[0] * step.settings.tokens[0] for step in steps]
        axes.plot(
            flops, [step.outcome.loss for step in steps], "o", color=STAGE_COLORS[stage], markersize=4, label=stage
        )
    target = 6 * plan.settings.blocks[0] * plan.settings.tokens[0]
    bars = [[plan.predicted_loss - plan.low], [plan.high - plan.predicted_loss]]
    axes.errorbar([target], [plan.predicted_loss], yerr=bars, fmt="*", color="black", markersize=10, label="target")
    axes.set_xscale("log")
    axes.legend(frameon=False)
    tidy(axes, "6 · block parameters · tokens (FLOPs)", "final loss (nats per token)")
    return figure_png(figure)


def plot_learning_rates(plan: Plan) -> bytes:
    """Learning rates tried against model size, their excess loss as color, and the best rate that was fitted."""
    usable = [step for step in plan.steps if not step.problem]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    blocks = np.array([step.settings.blocks[0] for step in usable])
    best = [float(plan.surrogate.loss(s.settings.with_lr(plan.surrogate.best_lr(s.settings)))[0]) for s in usable]
    excess = np.array([100 * (step.outcome.loss / low - 1) for step, low in zip(usable, best, strict=True)])
    dots = axes.scatter(
        blocks, [step.settings.lr[0] for step in usable], c=np.clip(excess, 0, 5), cmap="viridis_r", s=22, label="runs"
    )
    figure.colorbar(dots, ax=axes, label="loss above that of the best learning rate (%)")
    fitted = [float(plan.surrogate.best_lr(step.settings)[0]) for step in usable]
    axes.plot(blocks, fitted, "_", color="#8c1515", markersize=9, label="best for the run's size, batch and tokens")
    axes.plot(plan.settings.blocks, plan.settings.lr, "*", color="black", markersize=12, label="target")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    tidy(axes, "block parameters", "peak learning rate")
    return figure_png(figure)


def plot_foresight(plan: Plan) -> bytes:
    """Measured over predicted loss of each run, predicted before it was made."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="black", linewidth=0.7)
    order = {id(step): number for number, step in enumerate(plan.steps, start=1)}
    for stage, steps in _by_stage([step for step in plan.steps if not step.problem]).items():
        errors = [100 * (step.outcome.loss / step.predicted - 1) for step in steps]
        axes.plot([order[id(s)] for s in steps], errors, "o", color=STAGE_COLORS[stage], markersize=4, label=stage)
    axes.set_yscale("symlog", linthresh=1)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes, "run", "measured over predicted loss − 1 (%)")
    return figure_png(figure)
