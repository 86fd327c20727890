"""What a benchmark's results come to: graded, compared by a judge, or judged for safety."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs336_alignment.evaluation.config import EvaluationConfig
from cs336_alignment.evaluation.judge import PAIRWISE, SAFETY, compare, pair_cases
from cs336_alignment.evaluation.judging import judge_cases
from cs336_alignment.evaluation.presentation import (
    accuracy_sections,
    generation_sections,
    safety_sections,
    win_rate_sections,
)
from cs336_alignment.evaluation.resumable import Row
from cs336_alignment.evaluation.runner import read_throughput
from cs336_alignment.evaluation.safety import safety_cases, summarize_safety, with_verdicts
from cs336_alignment.evaluation.safety import write_outputs as write_safety_outputs
from cs336_alignment.evaluation.summary import count_endings, summarize
from cs336_alignment.evaluation.task import Task
from cs336_alignment.evaluation.win_rate import pairs, summarize_comparisons, write_annotations, write_outputs
from cs336_basics.report import Section

ASSIGNMENTS = {"pairwise": PAIRWISE, "safety": SAFETY}
SAFETY_OUTPUTS_NAME = "safety_outputs.jsonl"


@dataclass(frozen=True)
class Conclusion:
    """The end of an evaluation.

    Attributes:
        rows: the results, with verdicts if a judge was asked for them.
        summary: the figures.
        sections: how the figures are shown.
    """

    rows: list[Row]
    summary: dict[str, Any]
    sections: Sequence[Section]


def conclude(task: Task, config: EvaluationConfig, rows: list[Row], folder: Path) -> Conclusion:
    """Judge if the task needs it, and summarize.

    Args:
        task: the benchmark.
        config: names the judge.
        rows: lines of `results.jsonl`.
        folder: where the results are, and other programs' forms of them go.
    """
    throughput = {"throughput": read_throughput(folder)}
    groups = [name for name in task.groups if any(name in row for row in rows)]
    if task.judging is None:
        summary = summarize(rows, groups, config.pass_ks) | throughput
        return Conclusion(rows, summary, accuracy_sections(summary))
    pairwise = task.judging == "pairwise"
    if pairwise:
        generator = config.generator or Path(config.model).name
        write_outputs(rows, generator, folder)
    else:
        write_safety_outputs(rows, folder / SAFETY_OUTPUTS_NAME)
    cases = pair_cases(pairs(rows)) if pairwise else safety_cases(rows)
    judgments = judge_cases(config, ASSIGNMENTS[task.judging], cases, folder)
    if judgments is None:
        summary = {"examples": len(rows), **count_endings(rows)} | throughput
        return Conclusion(rows, summary, generation_sections(summary))
    judge = {"judge": config.judge_model}
    if pairwise:
        comparisons = compare(judgments)
        write_annotations(rows, comparisons, generator, config.judge_model, folder)
        summary = summarize_comparisons(rows, comparisons) | judge | throughput
        return Conclusion(rows, summary, win_rate_sections(summary))
    judged = with_verdicts(rows, judgments)
    summary = summarize_safety(judged, groups) | judge | throughput
    return Conclusion(judged, summary, safety_sections(summary))
