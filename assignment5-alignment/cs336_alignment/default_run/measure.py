"""A model's accuracy on held-out questions: greedy, and sampled as in training."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_alignment.evaluation.benchmark import evaluate
from cs336_alignment.evaluation.config import EvaluationConfig

WAYS: dict[str, dict[str, object]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0, "num_samples": 4, "pass_at": "1,4"},
}
"""How the questions are answered, and with which settings."""


def main(argv: Sequence[str] | None = None) -> None:
    """Answer the questions in every way of `WAYS`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--data", required=True, help="the questions, JSON Lines of question and answer")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    arguments = parser.parse_args(argv)
    for way, settings in WAYS.items():
        evaluate(
            EvaluationConfig(
                model=arguments.model, data=arguments.data, seed=arguments.seed, out=str(arguments.out / way),
                device="cpu", max_tokens=64, generation_batch_size=256, chunk_size=256, quiet=True, show=0, **settings,
            )
        )  # fmt: skip
