"""The command that runs the whole chain (`scripts/default_run.py`)."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from cs336_alignment.default_run.plots import run_curves
from cs336_alignment.default_run.results import accuracy_table, collect_results, pairs_table, time_table
from cs336_alignment.default_run.schedule import run_stages
from cs336_alignment.default_run.stages import NUM_QUESTIONS, QUESTIONS_NAME, SMOKE_QUESTIONS, all_stages
from cs336_alignment.default_task.base_model import model_folder
from cs336_alignment.default_task.tasks import make_examples
from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.machine import machine_description
from cs336_basics.report import Figure, Section, Table, Text, write_report

DEFAULT_OUT = Path("runs/default_run")
RESULTS_NAME, TABLE_NAME, CURVES_NAME, REPORT_NAME = "results.json", "results.md", "curves.png", "report.html"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Run the whole chain on the default task and measure every model on held-out questions: base "
        "model, SFT, expert iteration, GRPO, reward model, DPO. Under 15 minutes for one seed on two CPU cores; an "
        "interrupted run goes on where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seeds", default="0,1,2", help="one chain for each, with commas; the base model is shared")
    parser.add_argument("--out", type=Path, help=f"folder of the run; None: {DEFAULT_OUT}, or smoke below it")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="stages at a time, at least 1")
    parser.add_argument("--smoke", action="store_true", help="all stages with tiny settings, one seed")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        raise UsageError(f"--jobs {arguments.jobs} is too few: at least 1 is needed")
    seeds = [0] if arguments.smoke else parse_seeds(arguments.seeds)
    out = arguments.out or (DEFAULT_OUT / "smoke" if arguments.smoke else DEFAULT_OUT)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            run_chain(out, seeds, arguments.smoke, arguments.jobs, not arguments.quiet)
    except Timeout:
        raise UsageError(f"another process is at work on {out}: wait for it, or give another --out") from None


def parse_seeds(text: str) -> list[int]:
    """The seeds, each once and in order.

    Raises:
        UsageError: that is no list of numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise UsageError(f"--seeds {text!r} is not allowed: give whole numbers from 0 with commas, such as 0,1,2")
    return sorted(set(map(int, parts)))


def run_chain(out: Path, seeds: list[int], smoke: bool, jobs: int, progress: bool = True) -> None:
    """Run what is not done yet, then write `results.json`, `results.md`, `curves.png` and `report.html`."""
    with atomic_write(out / QUESTIONS_NAME, "w") as file:
        for example in make_examples("test", SMOKE_QUESTIONS if smoke else NUM_QUESTIONS):
            file.write(json.dumps({"question": example["question"], "answer": example["answer"]}) + "\n")
    run_stages(out, all_stages(out, seeds, smoke), jobs, progress)
    results = collect_results(out, seeds, model_folder(smoke=smoke))
    curves = run_curves(out, seeds, results)
    tables = {
        "Held-out accuracy": accuracy_table(results),
        "Preferences": pairs_table(results),
        "Time": time_table(results),
    }
    with atomic_write(out / RESULTS_NAME, "w") as file:
        json.dump({**results, "machine": machine_description()}, file, indent=1)
    with atomic_write(out / TABLE_NAME, "w") as file:
        file.write("\n\n".join(markdown_table(*table) for table in tables.values()) + "\n")
    with atomic_write(out / CURVES_NAME) as file:
        file.write(curves)
    note = (
        f"Means over {len(seeds)} seeds, from the lowest to the highest in parentheses. "
        "Test questions are in no training data."
    )
    sections = [Section(title, [Table(*table)]) for title, table in tables.items()]
    write_report(
        out / REPORT_NAME, "The default run", [*sections, Section("Curves", [Figure(curves), Text(note)])],
        subtitle=f"seeds {', '.join(map(str, seeds))}",
    )  # fmt: skip
    print((out / TABLE_NAME).read_text(encoding="utf-8"))
    print(f"report: {out / REPORT_NAME}")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])
