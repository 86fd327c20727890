"""The command of the pipeline: from web archives to filtered, deduplicated documents.

With no argument it makes a small web of its own and does the whole way on it.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_data.executors import EXECUTORS, available_cores, make_executor
from cs336_data.pipeline.dedup_settings import METHODS
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.filtering import FilterSettings
from cs336_data.pipeline.inputs import find_units
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.run import Run
from cs336_data.pipeline.settings import dedup_settings, filter_specs, key_values, read_config
from cs336_data.web_archive.records import READERS

DEFAULT_OUT = Path("data/filtered")
DEFAULT_WEB = Path("data/small_web")
SMOKE_PAGES = 60
# Monthly crawls of recent years: about 3 billion pages in 100,000 files.
PAGES_PER_WET = 30_000
# Cluster schedulers do the queueing themselves; only processes of this machine are given little at a time.
_IN_FLIGHT_ON_CLUSTERS = 10_000


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Filter web pages: files (WARC, WET or JSON Lines; gzip, zstd or plain) to sharded JSON Lines of "
        "kept documents, and a report. The same command goes on where a run was interrupted. Exit code 1: some input "
        "files failed (they are named; the others are done).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="*", help=f"files, folders or globs; without any, a small web made for it in {DEFAULT_WEB}"
    )
    parser.add_argument("--out", type=Path, help=f"folder of the result (default: {DEFAULT_OUT})")
    parser.add_argument("--config", type=Path, help="YAML file with filters, their options, and dedup")
    parser.add_argument(
        "--filters", nargs="+", metavar="NAME", help="filters to run, in this order; else the default chain"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="FILTER.OPTION=VALUE", help="an option of a filter; repeatable"
    )
    parser.add_argument("--dedup", choices=METHODS, help="deduplication (default: both, or what --config says)")
    parser.add_argument(
        "--keep_rejected", action="store_true", help="write rejected documents, too, with their reasons"
    )
    parser.add_argument("--reader", choices=list(READERS), default="fastwarc", help="reader of web archives")
    parser.add_argument("--redo", action="store_true", help="discard a run with other settings in the same folder")
    parser.add_argument("--executor", choices=EXECUTORS, default="local", help="where the work is done")
    parser.add_argument("--workers", type=int, help="processes (jobs) at a time (default: one for every core)")
    parser.add_argument(
        "--dask_scheduler", metavar="ADDRESS", help="a running Dask scheduler; else a cluster of our own"
    )
    parser.add_argument("--slurm_cluster", choices=["slurm", "local"], help='"local" runs the jobs without Slurm')
    parser.add_argument(
        "--slurm_option", action="append", default=[], metavar="NAME=VALUE",
        help="for submitit, like slurm_partition=cpu or timeout_min=60; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--pages_per_wet", type=int, default=PAGES_PER_WET, help="pages of a WET file, for the report's projection"
    )
    parser.add_argument(
        "--smoke", action="store_true", help=f"a small web of {SMOKE_PAGES} pages, in a folder of its own"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = _parser().parse_args(argv)
    if arguments.workers is not None and arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers} is too few: at least 1 is needed")
    if arguments.pages_per_wet < 1:
        raise UsageError(f"--pages_per_wet {arguments.pages_per_wet} is too few: at least 1 is needed")
    config = read_config(arguments.config)
    filters = filter_specs(config, arguments.filters, arguments.option)
    dedup = dedup_settings(config, method=arguments.dedup)
    out = arguments.out or (DEFAULT_OUT / "smoke" if arguments.smoke else DEFAULT_OUT)
    inputs = arguments.inputs or _small_web(arguments.smoke, not arguments.quiet)
    workers = arguments.workers or available_cores()
    run = Run(
        find_units(inputs),
        Layout(out),
        FilterSettings(filters, arguments.reader, arguments.keep_rejected),
        dedup,
        workers,
        arguments.pages_per_wet,
        arguments.redo,
    )
    open_executor = functools.partial(
        make_executor,
        arguments.executor,
        workers,
        dask_scheduler=arguments.dask_scheduler,
        slurm_folder=out / "work" / "slurm",
        slurm_cluster=arguments.slurm_cluster,
        slurm_parameters=key_values(arguments.slurm_option),
    )
    in_flight = 2 * workers if arguments.executor == "local" else _IN_FLIGHT_ON_CLUSTERS
    with Engine(open_executor, workers, in_flight, progress=not arguments.quiet) as engine:
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
