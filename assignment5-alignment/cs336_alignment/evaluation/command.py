"""The command that measures a model on a benchmark (`scripts/evaluate.py`)."""

from collections.abc import Sequence

from cs336_alignment.evaluation.benchmark import evaluate
from cs336_alignment.evaluation.config import EvaluationConfig, parse_config


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    description = (
        "Measure a model on a benchmark: accuracy, pass@k, win rate or safety, with every response kept. "
        "The same command goes on where a stopped run was."
    )
    evaluate(parse_config(EvaluationConfig, argv, "evaluate.py", description))
