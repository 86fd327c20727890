"""The command that measures every filter on labeled data: one table, and the errors on request."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_data.filter_evaluation import EVALUATIONS, HEADER, Settings, evaluate, list_errors
from cs336_systems.result_table import ResultTable

SMOKE_PAGES = 100


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description="Measure every filter on labeled data: precision and recall with 95 % intervals, as a table.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "only", nargs="*", metavar="NAME", help=f"evaluations to run: {', '.join(EVALUATIONS)}; all if none"
    )
    parser.add_argument("--pages", type=int, default=Settings.num_pages, help="pages of the small web to measure on")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="seed of the small web and the generated lists")
    parser.add_argument(
        "--shared_data",
        type=Path,
        default=os.environ.get("CS336_DATA"),
        help="folder of real labeled data; default: the environment variable CS336_DATA; evaluations that need it are "
        "left out where there is none",
    )
    parser.add_argument("--errors", type=int, default=0, metavar="N", help="list the first N errors of each row")
    parser.add_argument("--output", type=Path, help="file to write the table to as well: .md or .csv")
    parser.add_argument("--smoke", action="store_true", help=f"a quick run on {SMOKE_PAGES} pages")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it if asked to."""
    arguments = build_parser().parse_args(argv)
    output: Path | None = arguments.output
    if output is not None and output.suffix not in (".md", ".csv"):
        raise UsageError(f"--output {output} must end in .md or .csv")
    if arguments.shared_data is not None and not arguments.shared_data.is_dir():
        raise UsageError(f"--shared_data {arguments.shared_data} is no folder")
    settings = Settings(SMOKE_PAGES if arguments.smoke else arguments.pages, arguments.seed, arguments.shared_data)
    measurements, left_out = evaluate(arguments.only or EVALUATIONS, settings)
    table = ResultTable(HEADER, [one.row() for one in measurements])
    print(table.markdown())
    for line in left_out:
        print(line)
    if arguments.errors > 0:
        for one in measurements:
            if one.errors:
                print()
                print(list_errors(one, arguments.errors))
    if output is not None:
        with atomic_write(output, "w") as file:
            file.write(table.markdown() + "\n" if output.suffix == ".md" else table.csv())
