"""Plots of fits as PNGs: isoFLOP profiles, compute-optimal sizes, losses against compute, residuals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cs336_basics.curves import figure_png, tidy
from cs336_scaling.fitting.chinchilla import ChinchillaLaw
from cs336_scaling.fitting.iso_flops import IsoFlopFit
from cs336_scaling.fitting.kaplan import KaplanLaw
from cs336_scaling.fitting.methods import ScalingLaw
from cs336_scaling.fitting.runs import Runs

LAW_COLORS = ("#8c1515", "#2f6db3", "#3f8f5f", "#b3762f")


def _budget_colors(budgets: int) -> Sequence[tuple[float, ...]]:
    return [colormaps["viridis"](0.9 * index / max(1, budgets - 1)) for index in range(budgets)]


def plot_profiles(runs: Runs, fits: Sequence[IsoFlopFit]) -> bytes:
    """Loss against model size, a color for each compute budget, with the optima that each fit found."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    profiles = runs.by_budget()
    for profile, color in zip(profiles, _budget_colors(len(profiles)), strict=True):
        order = np.argsort(profile.parameters)
        axes.plot(
            profile.parameters[order], profile.loss[order], "o-", color=color, markersize=4, linewidth=0.8,
            label=f"{np.median(profile.flops):.2g} FLOPs",
        )  # fmt: skip
    for fit, marker in zip(fits, "s*", strict=False):
        axes.plot(
            [optimum.parameters for optimum in fit.optima], [optimum.loss for optimum in fit.optima], marker,
            color="#8c1515", markersize=9, markerfacecolor="none", label=fit.method_name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    tidy(axes, "parameters N", "final loss (nats per token)")
    return figure_png(figure)


def _plot_optima(axes: Axes, laws: Sequence[ScalingLaw], flops: np.ndarray, which: int) -> None:
    for law, color in zip(laws, LAW_COLORS, strict=False):
        exponent = law.exponents[which]
        label = f"{law.method_name.split(' (')[0]}: exponent {exponent:.3f}"
        axes.plot(flops, [law.optimal(budget)[which] for budget in flops], color=color, linewidth=1.3, label=label)
        if isinstance(law, IsoFlopFit):
            found = [(optimum.parameters, optimum.tokens)[which] for optimum in law.optima]
            axes.plot([optimum.flops for optimum in law.optima], found, "o", color=color, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=7)


def plot_optima(laws: Sequence[ScalingLaw], smallest: float, largest: float) -> bytes:
    """N_opt and D_opt against compute by each law, from `smallest` to `largest` FLOPs."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, 2)
    flops = np.geomspace(smallest, largest, 50)
    for which, (axes, name) in enumerate(zip(panels, ("parameters N", "tokens D"), strict=True)):
        _plot_optima(axes, laws, flops, which)
        tidy(axes, "compute C (FLOPs)", f"compute-optimal {name}")
    return figure_png(figure)


def plot_loss(runs: Runs, laws: Sequence[ScalingLaw], largest: float) -> bytes:
    """All runs' losses against compute, and what each law says of the compute-optimal model up to `largest` FLOPs."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    dots = axes.scatter(runs.flops, runs.loss, c=np.log10(runs.parameters), cmap="viridis", s=14)
    figure.colorbar(dots, ax=axes, label="log₁₀ N")
    flops = np.geomspace(runs.flops.min(), max(largest, runs.flops.max()), 60)
    for law, color in zip(laws, LAW_COLORS, strict=False):
        label = law.method_name.split(" (")[0]
        axes.plot(flops, [law.optimal_loss(budget) for budget in flops], color=color, linewidth=1.3, label=label)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    tidy(axes, "compute C (FLOPs)", "loss (nats per token)")
    return figure_png(figure)


def residuals(runs: Runs, law: ScalingLaw) -> tuple[np.ndarray, np.ndarray]:
    """(FLOPs, log of measured over predicted loss): of every run, or of each optimum for isoFLOPs."""
    if isinstance(law, ChinchillaLaw | KaplanLaw):
        return runs.flops, np.log(runs.loss / law.loss(runs.parameters, runs.tokens))
    flops = np.array([optimum.flops for optimum in law.optima])
    found = np.array([optimum.loss for optimum in law.optima])
    return flops, np.log(found / np.array([law.optimal_loss(budget) for budget in flops]))


def plot_residuals(runs: Runs, laws: Mapping[str, ScalingLaw]) -> bytes:
    """One panel for each law: log of measured over predicted loss against compute. A pattern means a wrong form."""
    figure = Figure(figsize=(4.2 * len(laws), 3.6), layout="constrained")
    for axes, (name, law) in zip(np.ravel(figure.subplots(1, len(laws))), laws.items(), strict=True):
        flops, values = residuals(runs, law)
        axes.axhline(0, color="black", linewidth=0.7)
        axes.plot(flops, 100 * values, "o", color="#2f6db3", markersize=4, alpha=0.7)
        axes.set_xscale("log")
        axes.set_title(f"{name}: rms {100 * np.sqrt(np.mean(values**2)):.2g} %", fontsize=10)
        tidy(axes, "compute C (FLOPs)", "log residual of the loss (%)")
    return figure_png(figure)
