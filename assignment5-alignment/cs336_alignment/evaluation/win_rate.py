"""AlpacaEval's figures and files: the outputs, the annotations of the judge, and the win rate over the references."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs336_alignment.evaluation.judge import Comparison
from cs336_alignment.evaluation.length_control import length_controlled_win_rate
from cs336_alignment.evaluation.resumable import Row
from cs336_alignment.evaluation.summary import average, count_endings, groups_of, share
from cs336_basics.atomic_file import atomic_write

OUTPUTS_NAME, ANNOTATIONS_NAME = "alpaca_eval_outputs.json", "annotations.json"


def pairs(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Instruction, the first response, and the reference of each line of results."""
    return [(row["instruction"], row["responses"][0]["text"], row["reference"]) for row in rows]


def write_outputs(rows: Sequence[Row], generator: str, folder: Path) -> Path:
    """Write what the program `alpaca_eval` takes: a JSON list of instruction, output, generator and dataset.

    Args:
        rows: the results.
        generator: what the model is called.
        folder: where to.
    """
    outputs = [
        {
            "instruction": row["instruction"],
            "output": row["responses"][0]["text"],
            "generator": generator,
            "dataset": row.get("dataset", ""),
        }
        for row in rows
    ]
    return _write_json(outputs, folder / OUTPUTS_NAME)


def write_annotations(
    rows: Sequence[Row], comparisons: Sequence[Comparison], generator: str, annotator: str, folder: Path
) -> Path:
    """Write the judge's preferences in AlpacaEval's format: output_1 is the reference, `preference` 1 to 2 (ours).

    A preference is null where no verdict could be read.
    """
    annotations = [
        {
            "instruction": row["instruction"],
            "dataset": row.get("dataset", ""),
            "output_1": row["reference"],
            "generator_1": row["reference_generator"],
            "output_2": row["responses"][0]["text"],
            "generator_2": generator,
            "annotator": annotator,
            "preference": None if one.preference is None else 1 + one.preference,
        }
        for row, one in zip(rows, comparisons, strict=True)
    ]
    return _write_json(annotations, folder / ANNOTATIONS_NAME)


def summarize_comparisons(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The figures of judged pairs.

    Returns:
        `pairs`; `unread`, pairs without a verdict in both orders; `win_rate`, the mean preference, with a 95 %
        interval over pairs; `wins`, `ties` (the orders disagreeing, or two ties) and `losses`; `consistent`, the share
        with the same winner in both orders; `first_preferred`, the share of verdicts for the answer that stood first
        (0.5 without position bias); mean `characters` of answers and references; `length_controlled_win_rate`; and the
        win rate `by_group` of the data set.
    """
    read = [(row, one) for row, one in zip(rows, comparisons, strict=True) if one.preference is not None]
    preferences = [one.preference for _, one in read]
    verdicts = [verdict for one in comparisons for verdict in (one.as_first, one.as_second) if verdict in ("A", "B")]
    by_dataset = groups_of([row | {"preference": one.preference} for row, one in read], "dataset")
    return {
        "pairs": len(rows),
        "unread": len(rows) - len(read),
        "win_rate": share(preferences),
        "wins": sum(value > 0.5 for value in preferences),
        "ties": sum(value == 0.5 for value in preferences),
        "losses": sum(value < 0.5 for value in preferences),
        "consistent": average([float(one.consistent) for _, one in read]),
        "first_preferred": average([float(verdict == "A") for verdict in verdicts]),
        "characters": {
            "answers": average([len(row["responses"][0]["text"]) for row in rows]),
            "references": average([len(row["reference"]) for row in rows]),
        },
        "length_controlled_win_rate": length_controlled_win_rate(
            preferences, [len(row["responses"][0]["text"]) - len(row["reference"]) for row, _ in read]
        ),
        **count_endings(rows),
        "by_group": {
            "dataset": {
                name: {"examples": len(some), **share([row["preference"] for row in some])}
                for name, some in by_dataset.items()
            }
        },
    }


def _write_json(value: Any, path: Path) -> Path:
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
    return path
