"""The fitting command: a file of runs in; a Markdown table, plots, a JSON file and an HTML report out."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.report import Figure, Section, Table, Text, write_report
from cs336_scaling.fitting.example_runs import example_runs
from cs336_scaling.fitting.iso_flops import IsoFlopFit
from cs336_scaling.fitting.methods import DESCRIPTIONS, METHODS
from cs336_scaling.fitting.plots import plot_loss, plot_optima, plot_profiles, plot_residuals
from cs336_scaling.fitting.runs import Runs, column_names, read_table, runs_from_rows
from cs336_scaling.fitting.study import MethodResult, default_targets, study_runs
from cs336_scaling.markdown_table import markdown_table

EXAMPLE_TEXT = """These runs are an example: a made-up world that follows Chinchilla's published law,
L = 1.69 + 406.4/N^0.34 + 410.7/D^0.28, with 0.3 % noise (seed 0). The true exponents are 0.452 for N, 0.548 for D."""


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        description="Fit scaling laws to a table of training runs by several methods, side by side.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("runs", nargs="?", type=Path, help="JSON or CSV file of runs; without it, example runs")
    parser.add_argument("--format", choices=["auto", "json", "csv"], default="auto", help="auto: by the file's ending")
    for role, what in (
        ("parameters", "parameters N"), ("tokens", "training tokens D"), ("flops", "training compute C in FLOPs"),
    ):  # fmt: skip
        parser.add_argument(f"--{role}-column", help=f"column of {what}; default: by its usual names")
    parser.add_argument(
        "--loss-column", action="append",
        help="column of the final loss; repeat it or use * to fit several; default: by its usual names",
    )  # fmt: skip
    parser.add_argument("--group-column", help="fit the rows of each value of this column apart (a data set, say)")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="fits to make")
    parser.add_argument(
        "--targets",
        nargs="+",
        type=float,
        help="budgets (FLOPs) to predict for; default: 10 and 100 times the largest",
    )
    parser.add_argument("--bootstrap", type=int, default=200, help="resamples for the confidence intervals; 0: none")
    parser.add_argument("--confidence", type=float, default=0.9, help="level of the confidence intervals, in (0, 1)")
    parser.add_argument("--held-out", type=int, default=1, help="how many of the largest budgets to hold out")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument("--out", type=Path, default=Path("runs/fit"), help="folder to write")
    return parser


def _tables(arguments: argparse.Namespace) -> dict[str, Runs]:
    """The tables of runs to fit, by title: one for each group and loss column."""
    if arguments.runs is None:
        return {"example": example_runs()}
    rows = read_table(arguments.runs, arguments.format)
    columns = {role: getattr(arguments, f"{role}_column") for role in ("parameters", "tokens", "flops")}
    losses = [name for given in arguments.loss_column or [] for name in column_names(rows, given)]
    group = arguments.group_column
    if group is not None and group not in rows[0]:
        raise UsageError(f"there is no column {group!r}; the file has {', '.join(rows[0])}")
    values = [None] if group is None else list(dict.fromkeys(row.get(group) for row in rows))
    tables = {}
    for value in values:
        chosen = rows if group is None else [row for row in rows if row.get(group) == value]
        for loss in losses or [None]:
            parts = ([] if value is None else [str(value)]) + ([loss] if len(losses) > 1 else [])
            tables[", ".join(parts) or arguments.runs.stem] = runs_from_rows(chosen, loss=loss, **columns)
    return tables


def _with_interval(row: Mapping[str, Any], name: str, spec: str) -> str:
    text, low, high = (f"{row[key]:{spec}}" for key in (name, f"{name}_low", f"{name}_high"))
    return text if low == "nan" else f"{text} ({low}–{high})"


def _table(results: Mapping[str, MethodResult], targets: Sequence[float], confidence: float) -> tuple[list[str], list]:
    header = ["method", "target C", "N_opt", "D_opt", "loss there", "exponents of N, D", "held-out error of the loss"]
    lines = []
    for result in results.values():
        for target in targets:
            row = result.row(target, confidence)
            error = row["held_out_error"]
            lines.append([
                row["method"], f"{target:.3g}", _with_interval(row, "parameters", ".3g"),
                _with_interval(row, "tokens", ".3g"), _with_interval(row, "loss", ".3f"),
                f"{row['exponent_parameters']:.3f}, {row['exponent_tokens']:.3f}",
                "–" if error is None else f"{100 * error:.2f} %",
            ])  # fmt: skip
    return header, lines


def _plots(runs: Runs, results: Mapping[str, MethodResult], targets: Sequence[float]) -> dict[str, tuple[bytes, str]]:
    """Plots by file name part, with their captions."""
    laws = {name: result.law for name, result in results.items()}
    profiles = [law for law in laws.values() if isinstance(law, IsoFlopFit)]
    found = {}
    if profiles:
        found["profiles"] = plot_profiles(runs, profiles), "Final loss against model size, by compute budget."
    smallest, largest = float(runs.flops.min()), max(targets)
    found["optima"] = (
        plot_optima(list(laws.values()), smallest, largest),
        "Compute-optimal size and data by each method.",
    )
    found["loss"] = plot_loss(runs, list(laws.values()), largest), "Runs, and the compute-optimal loss by each method."
    found["residuals"] = (
        plot_residuals(runs, laws),
        "Log of measured over predicted loss: of all runs for parametric losses, of the budgets' optima for isoFLOPs.",
    )
    return found


def _held_out_errors(studies: Mapping[str, Mapping[str, MethodResult]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the mean relative errors on the held-out budgets: a row per table, a column per method."""
    names = list(dict.fromkeys(name for results in studies.values() for name in results))
    rows = []
    for title, results in studies.items():
        unseen = {name: result.held_out for name, result in results.items() if result.held_out is not None}
        growth = max((held_out.growth for held_out in unseen.values()), default=None)
        errors = [f"{100 * unseen[name].mean_relative_error:.2f} %" if name in unseen else "–" for name in names]
        rows.append([title, "–" if growth is None else f"{growth:.3g} ×", *errors])
    return ["runs", "largest budget over the largest fitted", *(DESCRIPTIONS[name] for name in names)], rows


def _plain(value: Any) -> Any:
    """NaN as None, which JSON can say."""
    return None if isinstance(value, float) and value != value else value


def main(argv: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UsageError: an unreadable file, a missing column, runs that no method can fit, or a flag out of range.
    """
    arguments = build_parser().parse_args(argv)
    if not 0 < arguments.confidence < 1:
        raise UsageError(f"confidence is {arguments.confidence:g}; allowed is what lies between 0 and 1")
    if arguments.bootstrap < 0:
        raise UsageError(f"bootstrap is {arguments.bootstrap}; allowed are whole numbers from 0")
    if arguments.seed < 0 or arguments.held_out < 1:
        raise UsageError(
            f"seed and held-out are {arguments.seed} and {arguments.held_out}; allowed are at least 0 and at least 1"
        )
    if any(not 0 < target < float("inf") for target in arguments.targets or []):
        raise UsageError(f"targets are {arguments.targets}; allowed are FLOPs above 0")
    tables = _tables(arguments)
    sections: list[Section] = []
    studies: dict[str, dict[str, MethodResult]] = {}
    pages, numbers = [], []
    for title, runs in tqdm(tables.items(), desc="fitting", disable=len(tables) < 3):
        targets = arguments.targets or default_targets(runs)
        results, reasons = study_runs(
            runs, arguments.methods, targets,
            samples=arguments.bootstrap, held_out=arguments.held_out, seed=arguments.seed,
        )  # fmt: skip
        studies[title] = results
        header, lines = _table(results, targets, arguments.confidence)
        level = f"In brackets: {100 * arguments.confidence:g} % bootstrap intervals ({arguments.bootstrap} resamples)."
        notes = [f"Left out: {reason}." for reason in reasons.values()]
        pages.append("\n\n".join([f"## {title} ({len(runs)} runs)", markdown_table(header, lines), *notes]))
        plots = _plots(runs, results, targets)
        stem = re.sub(r"[^\w.]+", "-", title).strip("-")
        for name, (png, _) in plots.items():
            with atomic_write(arguments.out / f"{stem}-{name}.png") as file:
                file.write(png)
        coefficients = [
            [DESCRIPTIONS[name], ", ".join(f"{key} = {value:.4g}" for key, value in result.law.coefficients().items())]
            for name, result in results.items()
        ]
        sections.append(Section(title, [
            Text("\n\n".join([EXAMPLE_TEXT] * (arguments.runs is None) + [f"{len(runs)} runs.", *notes])),
            Table(header, lines, level), Table(["method", "coefficients"], coefficients),
            *(Figure(png, caption) for png, caption in plots.values()),
        ]))  # fmt: skip
        for name, result in results.items():
            numbers += [
                {"table": title, "coefficients": result.law.coefficients(), "name": name}
                | {key: _plain(value) for key, value in result.row(target, arguments.confidence).items()}
                for target in targets
            ]
    if len(tables) > 1:
        header, lines = _held_out_errors(studies)
        caption = f"Mean relative error of the loss, {arguments.held_out} largest budgets predicted from the others."
        sections.insert(0, Section("Held-out errors", [Table(header, lines, caption)]))
        pages.insert(0, "\n\n".join(["## Held-out errors", caption, markdown_table(header, lines)]))
    page = "\n\n".join(pages)
    print(page if len(tables) == 1 else pages[0])
    with atomic_write(arguments.out / "fit.md", "w") as file:
        file.write(page + "\n")
    with atomic_write(arguments.out / "fit.json", "w") as file:
        json.dump(numbers, file, indent=1, ensure_ascii=False)
    write_report(arguments.out / "report.html", "Scaling laws", sections, f"from {arguments.runs or 'example runs'}")
    print(f"\nwrote {arguments.out}/report.html, fit.md, fit.json and the plots as PNG files")
