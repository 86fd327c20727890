"""The command that makes the tiny base model (`scripts/make_default_model.py`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_alignment.default_task.base_model import DEFAULT_FOLDER, ensure_default_model


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Pretrain the tiny base model on generated arithmetic and write it as a Hugging Face folder; "
        "nothing is done if it is there already. Programs make by themselves what they need.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where models are kept")
    parser.add_argument("--smoke", action="store_true", help="a smaller model, in seconds")
    parser.add_argument("--sft", action="store_true", help="fine-tune it, and say where the fine-tuned one lies")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    ensure = ensure_default_model
    if arguments.sft:
        from cs336_alignment.default_task.tuned_model import ensure_tuned_model as ensure
    print(ensure(arguments.folder, arguments.smoke, not arguments.quiet))
