"""The command of the pipeline: from web archives to filtered, deduplicated documents.

With no argument it makes a small web of its own and does the whole way on it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_data.executor_flags import add_executor_flags, make_engine
from cs336_data.executors import available_cores
from cs336_data.pipeline.dedup_settings import METHODS
from cs336_data.pipeline.filtering import FilterSettings
from cs336_data.pipeline.inputs import find_units
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.run import Run
from cs336_data.pipeline.settings import dedup_settings, filter_specs, read_config
from cs336_data.web_archive.records import READERS

DEFAULT_OUT = Path("data/filtered")
DEFAULT_WEB = Path("data/small_web")
SMOKE_PAGES = 60
# Monthly crawls of recent years: about 3 billion pages in 100,000 files.
PAGES_PER_WET = 30_000


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Filter web pages: files (WARC, WET or JSON Lines; gzip, zstd or plain) to sharded JSON Lines of "
        "kept documents, and a report. The same command goes on where a run was interrupted. Exit code 1: some input "
        "files failed (they are named; the others are done).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="*", help=f"files, folders or globs; none: a small web made for it in {DEFAULT_WEB}"
    )
    parser.add_argument("--out", type=Path, help=f"folder of the result; None: {DEFAULT_OUT}")
    parser.add_argument(
        "--config", type=Path, help="YAML file with filters, their options, and dedup, like configs/filter_cc.yaml"
    )
    parser.add_argument(
        "--filters",
        nargs="+",
        metavar="NAME",
        help="filters to run, in this order; None: the configuration's, else the default chain",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="FILTER.OPTION=VALUE", help="an option of a filter; repeatable"
    )
    parser.add_argument("--dedup", choices=METHODS, help="deduplication; None: what the configuration says, else both")
    parser.add_argument(
        "--keep_rejected",
        action="store_true",
        help="write rejected documents, too, with their reasons; always so for the small web",
    )
    parser.add_argument("--reader", choices=list(READERS), default="fastwarc", help="reader of web archives")
    parser.add_argument("--redo", action="store_true", help="discard a run with other settings in the same folder")
    add_executor_flags(parser)
    parser.add_argument(
        "--pages_per_wet", type=int, default=PAGES_PER_WET, help="pages of a WET file, for the report's projection"
    )
    parser.add_argument(
        "--smoke", action="store_true", help=f"a small web of {SMOKE_PAGES} pages, in a folder of its own"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = _parser().parse_args(argv)
    if arguments.pages_per_wet < 1:
        raise UsageError(f"--pages_per_wet {arguments.pages_per_wet} is too few: at least 1 is needed")
    config = read_config(arguments.config)
    filters = filter_specs(config, arguments.filters, arguments.option)
    dedup = dedup_settings(config, method=arguments.dedup)
    out = arguments.out or (DEFAULT_OUT / "smoke" if arguments.smoke else DEFAULT_OUT)
    inputs = arguments.inputs or _small_web(arguments.smoke, not arguments.quiet)
    run = Run(
        find_units(inputs),
        Layout(out),
        FilterSettings(filters, arguments.reader, arguments.keep_rejected or not arguments.inputs),
        dedup,
        arguments.workers or available_cores(),
        arguments.pages_per_wet,
        arguments.redo,
    )
    with make_engine(arguments, out / "work" / "slurm") as engine:
        report = run.execute(engine)
    print(report.markdown())
    print(f"\ndocuments: {out / 'kept'}\nreport: {run.layout.report_html}")
    if report.failed:
        print(f"error: {len(report.failed)} of {len(run.units)} input files failed; see above", file=sys.stderr)
        raise SystemExit(1)


def _small_web(smoke: bool, progress: bool) -> list[Path]:
    """The archives of the small web, made if they are not there."""
    from cs336_data.small_web import write_small_web

    if smoke:
        return write_small_web(DEFAULT_WEB / "smoke", num_pages=SMOKE_PAGES, progress=progress)
    return write_small_web(DEFAULT_WEB, progress=progress)
