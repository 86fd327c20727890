"""The command that makes a page of samples from the pipeline's result (`scripts/look_at_data.py`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_data.browse.page import MAX_CHARACTERS, write_page
from cs336_data.browse.samples import KEPT, document_files, draw_samples
from cs336_data.default_documents import default_run

PAGE_NAME = "samples.html"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Write a page for looking at documents: random samples of what was kept and of what each filter "
        "rejected, with the reasons highlighted. It is one file that fetches nothing.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="*", type=Path,
        help="folders that scripts/filter_cc.py wrote (with --keep_rejected), or JSON Lines files; without any, its "
        "default run, made first if need be",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help=f"the page; None: {PAGE_NAME} in the first folder")
    parser.add_argument("--samples", type=int, default=200, help="documents kept, and rejected by each filter, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the random choice, 0 to 2^64 - 1")
    parser.add_argument(
        "--max_characters", type=int, default=MAX_CHARACTERS,
        help="shown of a document's beginning, and again around highlighted places further on",
    )  # fmt: skip
    parser.add_argument("--title", help="heading of the page; None: the inputs' names")
    parser.add_argument("--smoke", action="store_true", help="the default run's small variant")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args(argv)
    for name in ("samples", "max_characters"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name} {getattr(arguments, name)} is too few: at least 1 is needed")
    if not 0 <= arguments.seed < 2**64:
        raise UsageError(f"--seed {arguments.seed} is not allowed: it must be from 0 to 2^64 - 1")
    inputs = arguments.inputs or [default_run(arguments.smoke)]
    samples = draw_samples(document_files(inputs), arguments.samples, arguments.seed, not arguments.quiet)
    folder = inputs[0] if inputs[0].is_dir() else inputs[0].parent
    out = arguments.out or folder / PAGE_NAME
    title = arguments.title or f"Documents in {', '.join(map(str, inputs))}"
    write_page(out, samples, title, arguments.max_characters)
    counts = [f"{count:,} {'kept' if name == KEPT else f'by {name}'}" for name, count in samples.counts.most_common()]
    print(f"{samples.counts.total():,} documents: {', '.join(counts)}")
    if samples.num_damaged:
        print(f"note: {samples.num_damaged:,} damaged lines or files were left out")
    print(f"page with {len(samples.records):,} of them: {out}")
