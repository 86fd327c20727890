"""What a trained reward model can do: its accuracy, in all and by source of the pairs, and its calibration."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cs336_alignment.reward_model.calibration import Calibration, calibrate, plot_reliability
from cs336_basics.atomic_file import atomic_write
from cs336_basics.confidence import wilson_interval
from cs336_basics.report import Figure, Section, Table, Text, write_report

REPORT_NAME, CALIBRATION_NAME, PLOT_NAME = "report.html", "calibration.json", "reliability.png"


def write_reward_report(
    folder: Path, margins: Sequence[float], sources: Sequence[str], best_of: Table | None = None
) -> None:
    """Write `calibration.json`, `reliability.png` and `report.html`, and print the figures.

    Args:
        folder: the run's.
        margins: for each validation pair, the score of the chosen response less that of the rejected one.
        sources: for each, where it comes from.
        best_of: how well it picks the best of several responses, as `best_of_n.best_of_table` says it.
    """
    calibration = calibrate(margins)
    plot = plot_reliability(calibration)
    accuracies = accuracy_table(margins, sources)
    with atomic_write(folder / CALIBRATION_NAME, "w") as file:
        json.dump(asdict(calibration), file, indent=1)
    with atomic_write(folder / PLOT_NAME) as file:
        file.write(plot)
    write_report(
        folder / REPORT_NAME,
        "Reward model",
        [
            Section("Accuracy on validation pairs", [accuracies]),
            Section("Calibration", [Text(calibration_in_words(calibration)), Figure(plot), _bins(calibration)]),
            *([] if best_of is None else [Section("Best of k", [best_of])]),
        ],
    )
    for source, pairs, accuracy, low, high in accuracies.rows:
        print(f"{source}: accuracy {accuracy:.3f} on {pairs} pairs (95% interval {low:.3f} to {high:.3f})")
    for k, accuracy, low, high, possible, _ in best_of.rows if best_of is not None else []:
        print(f"best of {k}: {accuracy:.3f} right ({low:.3f} to {high:.3f}), pass@{k} {possible:.3f}")
    print(f"{calibration_in_words(calibration)}\nreport:     {folder / REPORT_NAME}")


def accuracy_table(margins: Sequence[float], sources: Sequence[str]) -> Table:
    """How many pairs are answered right, with 95% confidence intervals; a tie is not right."""
    named = sorted({source for source in sources if source})
    groups = {source: [m for m, origin in zip(margins, sources, strict=True) if origin == source] for source in named}
    rows = []
    for source, group in {"all pairs": list(margins), **(groups if len(groups) > 1 else {})}.items():
        right = sum(margin > 0 for margin in group)
        rows.append([source, len(group), right / len(group), *wilson_interval(right, len(group))])
    return Table(["source", "pairs", "accuracy", "at least", "at most"], rows)


def calibration_in_words(calibration: Calibration) -> str:
    """The two figures of a calibration, and what they mean."""
    temperature = calibration.temperature
    advice = "too sure" if temperature > 1 else "not sure enough"
    return (
        f"Expected calibration error {calibration.error:.3f}; the model is {advice}: the labels are most likely when "
        f"its scores are divided by {temperature:.3g}."
    )


def _bins(calibration: Calibration) -> Table:
    rows = [
        [f"{part.low:.2f} to {part.high:.2f}", part.pairs, part.confidence, part.accuracy] for part in calibration.bins
    ]
    return Table(["confidence", "pairs", "mean confidence", "accuracy"], rows)
