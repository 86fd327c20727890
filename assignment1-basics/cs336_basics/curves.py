"""Curves of a run as a PNG: losses against step and wall clock, learning rate, gradient norm."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

TRAIN_COLOR, VALIDATION_COLOR = "#9aa9bd", "#8c1515"


def figure_png(figure: Figure) -> bytes:
    """A matplotlib figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def tidy(axes: Axes, x_label: str, y_label: str) -> None:
    """The look all plots of the project share: labels, a faint grid, no frame above and on the right."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _series(entries: Sequence[dict[str, Any]], x: str, y: str) -> tuple[list[float], list[float]]:
    points = [(entry[x], entry[y]) for entry in entries if entry.get(y) is not None]
    return [point[0] for point in points], [point[1] for point in points]


def _plot_losses(axes: Axes, entries: Sequence[dict[str, Any]], x: str) -> None:
    axes.plot(*_series(entries, x, "train_loss"), color=TRAIN_COLOR, linewidth=1, label="training batch")
    axes.plot(*_series(entries, x, "val_loss"), color=VALIDATION_COLOR, marker=".", label="validation")
    axes.legend(frameon=False)


def plot_curves(entries: Sequence[dict[str, Any]]) -> bytes:
    """Four panels in one PNG.

    Args:
        entries: a run's log as `run_log.read_metrics` returns it.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    (by_step, by_time), (rate, norm) = figure.subplots(2, 2)
    minutes = [{**entry, "minutes": entry["seconds"] / 60} for entry in entries]
    _plot_losses(by_step, entries, "step")
    tidy(by_step, "step", "loss (nats per token)")
    _plot_losses(by_time, minutes, "minutes")
    tidy(by_time, "wall clock (minutes)", "loss (nats per token)")
    rate.plot(*_series(entries, "step", "lr"), color="#2f6db3")
    tidy(rate, "step", "learning rate")
    norm.plot(*_series(entries, "step", "grad_norm"), color="#3f8f5f", linewidth=1)
    tidy(norm, "step", "gradient norm before clipping")
    return figure_png(figure)
