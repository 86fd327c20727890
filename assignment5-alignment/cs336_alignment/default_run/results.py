"""What a run comes to: accuracy of every model on held-out questions, over seeds, and how the pairs are told apart."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from cs336_alignment.default_run.measure import WAYS
from cs336_alignment.default_run.schedule import RECORD_NAME
from cs336_alignment.default_run.stages import BASE, TRAINED
from cs336_alignment.default_task.made_once import RECIPE_NAME
from cs336_basics.confidence import wilson_interval
from cs336_basics.run_log import METRICS_NAME, read_metrics

MODELS = {
    BASE: "base model", "sft": "SFT", "expert_iteration": "SFT, then expert iteration", "grpo": "SFT, then GRPO",
    "dpo": "SFT, then DPO",
}  # fmt: skip
"""The models that are measured, and what the tables call them."""


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds."""

    mean: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Over these values."""
        return cls(mean(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % ({100 * self.lowest:.1f} – {100 * self.highest:.1f})"


def collect_results(run: Path, seeds: Sequence[int], base_model: Path) -> dict[str, Any]:
    """All figures of a finished run, as `results.json` has them.

    Args:
        run: the run's folder.
        seeds: its seeds.
        base_model: the folder of the base model, with the times of its pretraining.
    """
    made = _read(base_model / RECIPE_NAME)
    return {
        "seeds": {str(seed): _of_seed(run / f"seed_{seed}") for seed in seeds},
        "pretraining": {name: made[name] for name in ("seconds", "cpu_seconds")},
    }


def _of_seed(folder: Path) -> dict[str, Any]:
    return {
        "models": {name: {way: _measured(folder / f"{name}_measured" / way) for way in WAYS} for name in MODELS},
        "reward_model": _pairs(folder / "reward_model"),
        "dpo": _pairs(folder / "dpo"),
        "seconds": _seconds(folder),
    }


def _measured(folder: Path) -> dict[str, Any]:
    summary = _read(folder / "summary.json")
    responses = sum(summary["categories"].values())
    return {
        "accuracy": summary["accuracy"],
        "pass_at": summary["pass_at"],
        "right_form": 1 - summary["categories"]["format 0, answer 0"] / responses,
        "tokens": summary["response_tokens"]["all"],
        "questions": summary["examples"],
    }


def _pairs(folder: Path) -> dict[str, Any]:
    """Accuracy and margin on held-out pairs before and after training."""
    entries = [entry for entry in read_metrics(folder / METRICS_NAME) if "val_accuracy" in entry]
    pairs = json.loads((folder / "config.json").read_text(encoding="utf-8"))["training_config"]["val_pairs"]
    last = {name: value for name, value in entries[-1].items() if name.startswith("val_")}
    interval = wilson_interval(round(last["val_accuracy"] * pairs), pairs)
    return {"pairs": pairs, "first": entries[0], "last": last, "interval": list(interval)}


def _seconds(folder: Path) -> dict[str, Any]:
    """Wall-clock and processor seconds of each stage, and the wall clock of the chain: stages overlap."""
    records = {path.parent.name: _read(path) for path in sorted(folder.glob(f"*/{RECORD_NAME}"))}
    intervals = sorted(interval for record in records.values() for interval in record["intervals"])
    wall, until = 0.0, 0.0
    for start, end in intervals:
        wall += max(0.0, end - max(start, until))
        until = max(until, end)
    stages = {name: {kind: record[kind] for kind in ("seconds", "cpu_seconds")} for name, record in records.items()}
    return {"stages": stages, "wall": wall, "cpu": sum(stage["cpu_seconds"] for stage in stages.values())}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def accuracy_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each model's accuracy, greedy and sampled, as mean and range over the seeds."""
    header = ["model", "greedy accuracy", "sampled accuracy", "pass@4", "right form, sampled", "tokens, sampled"]
    rows = []
    for name, title in MODELS.items():
        ways = [seed["models"][name] for seed in results["seeds"].values()]
        rows.append(
            [
                title,
                str(Spread.of([way["greedy"]["accuracy"]["value"] for way in ways])),
                str(Spread.of([way["sampled"]["accuracy"]["value"] for way in ways])),
                str(Spread.of([way["sampled"]["pass_at"]["4"]["value"] for way in ways])),
                str(Spread.of([way["sampled"]["right_form"] for way in ways])),
                f"{mean(way['sampled']['tokens'] for way in ways):.1f}",
            ]
        )
    return header, rows


def pairs_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: how often the better response of held-out pairs is preferred."""
    rows = []
    for name, title in (("reward_model", "reward model"), ("dpo", "DPO's implicit reward")):
        seeds = [seed[name] for seed in results["seeds"].values()]
        accuracy = Spread.of([seed["last"]["val_accuracy"] for seed in seeds])
        rows.append([title, str(accuracy), f"{mean(seed['last']['val_margin'] for seed in seeds):.2f}"])
    return ["preferred as labeled", "held-out pairs", "mean margin"], rows


def time_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: seconds of each stage, as means over the seeds."""
    pretraining, seeds = results["pretraining"], [seed["seconds"] for seed in results["seeds"].values()]
    rows = [["pretraining, once", f"{pretraining['seconds']:.0f}", f"{pretraining['cpu_seconds']:.0f}"]]
    for name in [*TRAINED, "reward_model"]:
        stages = [seed["stages"][name] for seed in seeds]
        rows.append([name, *(f"{mean(stage[kind] for stage in stages):.0f}" for kind in ("seconds", "cpu_seconds"))])
    measuring = [
        [sum(stage[kind] for name, stage in seed["stages"].items() if name.endswith("_measured")) for seed in seeds]
        for kind in ("seconds", "cpu_seconds")
    ]
    rows.append(["measuring all models", *(f"{mean(values):.0f}" for values in measuring)])
    wall = pretraining["seconds"] + mean(seed["wall"] for seed in seeds)
    cpu = pretraining["cpu_seconds"] + mean(seed["cpu"] for seed in seeds)
    rows.append(["in all, one seed", f"{wall:.0f}", f"{cpu:.0f}"])
    return ["stage", "wall-clock seconds", "processor seconds"], rows
