"""A study's results as files: table.md, table.csv, results.json, curves.png, losses.png and report.html."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure as Plot

from cs336_basics.atomic_file import atomic_write
from cs336_basics.check_pointing import load_model
from cs336_basics.curves import figure_png, tidy
from cs336_basics.experiments.study import Study
from cs336_basics.experiments.tokens import CorpusFolders
from cs336_basics.generate import generate_text
from cs336_basics.report import Figure, Section, Table, Text, format_cell, write_report
from cs336_basics.run_log import METRICS_NAME, read_metrics
from cs336_basics.tokenizer import Tokenizer

if TYPE_CHECKING:
    from cs336_basics.experiments.engine import Options, Outcome

PROMPTS = {"tinystories": "Once upon a time", "openwebtext": "The"}
NEW_TOKENS = 256


def write_results(
    study: Study,
    outcomes: Sequence["Outcome"],
    folder: Path,
    corpus: CorpusFolders,
    options: "Options",
    with_sample: bool,
) -> None:
    """Write all result files of the runs done so far into `folder`; a sample lets the best model write something."""
    table = outcome_table(study, outcomes)
    curves = plot_curves(outcomes, folder)
    blocks = [Figure(curves, "Validation loss against steps, and against wall-clock time.")]
    pictures = {"curves.png": curves}
    if study.x_axis is not None:
        pictures["losses.png"] = plot_losses(outcomes, study.x_axis)
        blocks.append(Figure(pictures["losses.png"], f"Last validation loss against {study.x_axis}."))
    for name, png in pictures.items():
        with atomic_write(folder / name) as file:
            file.write(png)
    with atomic_write(folder / "table.md", "w") as file:
        file.write(markdown_table(table))
    with atomic_write(folder / "table.csv", "w") as file:
        rows = csv.writer(file)
        rows.writerow(table.header)
        rows.writerows(table.rows)
    with atomic_write(folder / "results.json", "w") as file:
        json.dump([asdict(outcome) for outcome in outcomes], file, indent=1)
    sections = [Section("The question", [Text(study.question)]), Section("Results", [table, *blocks])]
    if with_sample:
        sections += _sample(study, outcomes, corpus, options)
    shared = {name: value for name, value in study.base.items() if name not in study.varied}
    sections.append(
        Section(
            "Settings shared by all runs",
            [Table(["setting", "value"], [*shared.items(), ("text", corpus.description)])],
        )
    )
    write_report(folder / "report.html", study.title, sections, f"{len(outcomes)} runs at the scale “{options.scale}”")


def outcome_table(study: Study, outcomes: Sequence["Outcome"]) -> Table:
    """One row for each run: what was varied, and how it ended."""
    header = [
        "run",
        *study.varied,
        "parameters",
        "steps",
        "tokens",
        "val. loss",
        "best",
        "minutes",
        "tokens/s",
        "ending",
    ]
    rows = [
        [
            outcome.run,
            *(outcome.settings[name] for name in study.varied),
            outcome.num_parameters,
            outcome.steps,
            outcome.tokens,
            outcome.final_val_loss,
            outcome.best_val_loss,
            outcome.seconds / 60,
            outcome.tokens / outcome.seconds if outcome.seconds else None,
            outcome.ending,
        ]
        for outcome in outcomes
    ]
    return Table(header, rows, "Losses in nats per token; of runs that diverged, the last finite ones.")


def markdown_table(table: Table) -> str:
    """The table in GitHub's Markdown."""
    lines = [table.header, ["---"] * len(table.header), *([format_cell(cell) for cell in row] for row in table.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot_curves(outcomes: Sequence["Outcome"], folder: Path) -> bytes:
    """Validation curves of all runs, as a PNG: against steps, and against minutes.

    The axes end just above the loss before training: a curve that diverges leaves them at the top.
    """
    figure = Plot(figsize=(11, 4.5), layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    lowest, untrained = math.inf, 0.0
    for outcome in outcomes:
        path = folder / outcome.run / METRICS_NAME
        points = [entry for entry in read_metrics(path) if "val_loss" in entry] if path.is_file() else []
        losses = [entry["val_loss"] for entry in points]
        lowest, untrained = min([lowest, *losses]), max([untrained, *losses[:1]])
        style = {"label": outcome.run, "linestyle": "--" if outcome.ending == "diverged" else "-"}
        by_step.plot([entry["step"] for entry in points], losses, **style)
        by_time.plot([entry["seconds"] / 60 for entry in points], losses, **style)
    tidy(by_step, "step", "validation loss (nats per token)")
    tidy(by_time, "wall clock (minutes)", "validation loss (nats per token)")
    if untrained:
        margin = 0.05 * (untrained - lowest) or 0.1
        by_step.set_ylim(lowest - margin, untrained + margin)
    by_step.legend(frameon=False, fontsize="small")
    return figure_png(figure)


def plot_losses(outcomes: Sequence["Outcome"], x_axis: str) -> bytes:
    """The last validation loss against a setting, as a PNG; runs that diverged are crosses along the top."""
    figure = Plot(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    good = [outcome for outcome in outcomes if outcome.final_val_loss is not None and outcome.ending != "diverged"]
    losses = [outcome.final_val_loss for outcome in good]
    axes.plot(
        [outcome.settings[x_axis] for outcome in good], losses, marker="o", color="#8c1515", label="trained to the end"
    )
    diverged = [outcome.settings[x_axis] for outcome in outcomes if outcome.ending == "diverged"]
    if diverged:
        top = max(losses, default=1.0) + 0.15 * (max(losses, default=1.0) - min(losses, default=0.0) or 1.0)
        axes.plot(diverged, [top] * len(diverged), "x", color="#555555", markersize=9, label="diverged")
    axes.set_xscale("log")
    axes.legend(frameon=False)
    tidy(axes, x_axis, "last validation loss (nats per token)")
    return figure_png(figure)


def _sample(study: Study, outcomes: Sequence["Outcome"], corpus: CorpusFolders, options: "Options") -> list[Section]:
    trained = [outcome for outcome in outcomes if outcome.checkpoint and outcome.ending != "diverged"]
    if not trained:
        return []
    best = min(trained, key=lambda outcome: math.inf if outcome.final_val_loss is None else outcome.final_val_loss)
    model = load_model(best.checkpoint, options.device)
    tokenizer = Tokenizer.from_directory(corpus.tokenizer_dir)
    prompt = PROMPTS[study.corpus]
    text = generate_text(model, tokenizer, prompt, NEW_TOKENS, temperature=0.8, top_p=0.9, seed=options.seed)
    return [Section(f"What {best.run} writes", [Text(text, preformatted=True)])]
