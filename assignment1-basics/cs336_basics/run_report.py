"""The report of one training run: its outcome, curves, samples and settings, from what the run left in its folder."""

import json
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs336_basics.atomic_file import atomic_write
from cs336_basics.curves import plot_curves
from cs336_basics.report import Figure, Section, Table, Text, write_report
from cs336_basics.run_log import METRICS_NAME, read_metrics

REPORT_NAME = "report.html"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _outcome(entries: Sequence[dict[str, Any]], description: dict[str, Any], ending: str, message: str) -> Table:
    rows: list[tuple[str, object]] = [("Ending", ending)]
    if message:
        rows.append(("What happened", message))
    rows.append(("Parameters", description["num_parameters"]))
    validations = [entry for entry in entries if "val_loss" in entry]
    if validations:
        last, best = validations[-1], min(validations, key=lambda entry: entry["val_loss"])
        rows += [
            ("Validation loss, last (nats per token)", last["val_loss"]),
            ("Validation perplexity, last", math.exp(min(last["val_loss"], 700))),
            (f"Validation loss, best (step {best['step']})", best["val_loss"]),
        ]
    if entries:
        rows += [
            ("Steps", entries[-1]["step"]),
            ("Tokens", entries[-1]["tokens"]),
            ("Wall clock", _duration(entries[-1]["seconds"])),
        ]
    logged = [entry for entry in entries if "tokens_per_second" in entry]
    if logged:
        rows.append(("Tokens per second, median", statistics.median(entry["tokens_per_second"] for entry in logged)))
        utilizations = [entry["mfu"] for entry in logged if entry["mfu"] is not None]
        if utilizations:
            rows.append(("Model FLOPs utilization, median", f"{statistics.median(utilizations):.1%}"))
    return Table(["quantity", "value"], rows)


def write_run_report(run_dir: str | os.PathLike, ending: str, samples: Sequence[str] = (), message: str = "") -> Path:
    """Write `curves.png` and `report.html` into a run's folder.

    Args:
        run_dir: the folder with the run's `metrics.jsonl` and `config.json`.
        ending: how the run ended, in words.
        samples: texts the trained model wrote, prompts included.
        message: a sentence on the ending, if there is more to say.

    Returns:
        The report's path.
    """
    run_dir = Path(run_dir)
    entries = read_metrics(run_dir / METRICS_NAME)
    description = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    sections = [Section("Outcome", [_outcome(entries, description, ending, message)])]
    if entries:
        curves = plot_curves(entries)
        with atomic_write(run_dir / "curves.png") as file:
            file.write(curves)
        caption = "Losses, learning rate and gradient norm. Validation uses the same windows of text every time."
        sections.append(Section("Curves", [Figure(curves, caption)]))
    if samples:
        sections.append(Section("Samples", [Text(sample, preformatted=True) for sample in samples]))
    for title, key in (("Model", "model_config"), ("Training settings", "train_config"), ("Machine", "machine")):
        settings = {name: value for name, value in description[key].items() if value is not None}
        if key == "train_config":
            settings = {name: value for name, value in settings.items() if name not in description["model_config"]}
        sections.append(Section(title, [Table(["setting", "value"], list(settings.items()))]))
    path = run_dir / REPORT_NAME
    write_report(
        path, f"Training run {run_dir.name}", sections, f"A Transformer of {description['num_parameters']:,} parameters"
    )
    return path
