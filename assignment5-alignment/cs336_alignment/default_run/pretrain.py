"""The first stage: the base model in the folder where all programs look for it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_alignment.default_task.base_model import DEFAULT_FOLDER, ensure_default_model


def main(argv: Sequence[str] | None = None) -> None:
    """Make the base model unless it is there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the stage; the model does not lie there")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where models are kept")
    parser.add_argument("--smoke", action="store_true", help="the small one")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    print(ensure_default_model(arguments.folder, arguments.smoke, not arguments.quiet))
