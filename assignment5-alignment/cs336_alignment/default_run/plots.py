"""Curves of the run: what reinforcement does to held-out accuracy and length, and what each model comes to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cs336_alignment.default_run.results import MODELS, Spread
from cs336_basics.curves import figure_png, tidy
from cs336_basics.run_log import METRICS_NAME, read_metrics

COLORS = {"expert_iteration": "#2f6db3", "grpo": "#8c1515", "dpo": "#3f8f5f", "reward_model": "#b8860b"}


def run_curves(run: Path, seeds: Sequence[int], results: dict[str, Any]) -> bytes:
    """Four panels in one PNG; lines are means over the seeds, bands reach from the lowest to the highest."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    (accuracies, held_out), (length, pairs) = figure.subplots(2, 2)
    _plot_models(accuracies, results)
    for name, label in (("grpo", "GRPO"), ("expert_iteration", "expert iteration")):
        _plot_mean(held_out, _logs(run, seeds, name), "eval_answer_reward", COLORS[name], label, share_of_run=True)
    tidy(held_out, "share of the run", "greedy accuracy, validation questions")
    held_out.set_ylim(0, 1.02)
    held_out.legend(frameon=False)
    _plot_mean(length, _logs(run, seeds, "grpo"), "response_length", COLORS["grpo"], "tokens per response")
    rewards = length.twinx()
    _plot_mean(rewards, _logs(run, seeds, "grpo"), "reward", "#9aa9bd", "reward")
    tidy(length, "GRPO step", "tokens per response (red)")
    rewards.set_ylabel("mean reward of training rollouts (gray)")
    for name, label in (("reward_model", "reward model"), ("dpo", "DPO, implicit reward")):
        _plot_mean(pairs, _logs(run, seeds, name), "val_accuracy", COLORS[name], label)
    tidy(pairs, "step", "held-out pairs told apart")
    pairs.legend(frameon=False)
    return figure_png(figure)


def _logs(run: Path, seeds: Sequence[int], name: str) -> list[list[dict[str, Any]]]:
    return [read_metrics(run / f"seed_{seed}" / name / METRICS_NAME) for seed in seeds]


def _plot_mean(
    axes: Axes, logs: Sequence[Sequence[dict[str, Any]]], name: str, color: str, label: str, share_of_run: bool = False
) -> None:
    """The mean of a logged value over the seeds, and the range."""
    curves = [{entry["step"]: entry[name] for entry in log if entry.get(name) is not None} for log in logs]
    steps = sorted(set.intersection(*map(set, curves)))
    if not steps:
        return
    values = np.array([[curve[step] for step in steps] for curve in curves])
    x = np.array(steps) / max(steps[-1], 1) if share_of_run else np.array(steps)
    axes.plot(x, values.mean(axis=0), color=color, label=label)
    axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.18, linewidth=0)


def _plot_models(axes: Axes, results: dict[str, Any]) -> None:
    for offset, way, color in ((-0.2, "greedy", "#8c1515"), (0.2, "sampled", "#9aa9bd")):
        spreads = [
            Spread.of([seed["models"][name][way]["accuracy"]["value"] for seed in results["seeds"].values()])
            for name in MODELS
        ]
        errors = [[one.mean - one.lowest for one in spreads], [one.highest - one.mean for one in spreads]]
        places = np.arange(len(MODELS)) + offset
        axes.bar(places, [one.mean for one in spreads], 0.38, yerr=errors, color=color, label=way, ecolor="#555555")
    labels = [title.replace("SFT, then ", "+ ") for title in MODELS.values()]
    axes.set_xticks(np.arange(len(MODELS)), labels, fontsize=8)
    tidy(axes, "", "accuracy, test questions")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False)
