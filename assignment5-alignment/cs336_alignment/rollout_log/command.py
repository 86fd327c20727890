"""The command that makes the page of a run's rollouts (`scripts/browse_rollouts.py`)."""

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from cs336_alignment.rollout_log.page import MAX_CHARACTERS, MAX_ROLLOUTS, PAGE_NAME, write_rollout_page
from cs336_alignment.rollout_log.reading import ROLLOUTS_NAME
from cs336_basics.command_line import UsageError

RUNS = Path("runs")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Write a page for looking at the rollouts of a run, by step, prompt and reward. It is one file "
        "that fetches nothing.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "run", nargs="?", type=Path,
        help=f"a run's folder with {ROLLOUTS_NAME}, or such a file; None: the newest below {RUNS}/",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help=f"the page; None: {PAGE_NAME} in the run's folder")
    parser.add_argument("--title", help="heading of the page; None: from the folder's name")
    parser.add_argument(
        "--max_rollouts", type=int, default=MAX_ROLLOUTS,
        help="rollouts on the page at most; beyond, whole groups are drawn at random",
    )  # fmt: skip
    parser.add_argument("--max_characters", type=int, default=MAX_CHARACTERS, help="shown of each prompt and response")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    for name in ("max_rollouts", "max_characters"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name} {getattr(arguments, name)} is too few: at least 1 is needed")
    page = write_rollout_page(
        arguments.run or newest_run(RUNS), arguments.out, title=arguments.title, max_rollouts=arguments.max_rollouts,
        max_characters=arguments.max_characters, progress=not arguments.quiet,
    )  # fmt: skip
    print(page)
    if arguments.open:
        webbrowser.open(page.resolve().as_uri())


def newest_run(folder: Path) -> Path:
    """The run below `folder` whose rollouts were written last.

    Raises:
        UsageError: there is none.
    """
    files = sorted(folder.rglob(ROLLOUTS_NAME), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UsageError(f"there is no run with {ROLLOUTS_NAME} below {folder}/: name one")
    return files[-1].parent
