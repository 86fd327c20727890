"""The flags by which commands choose where their work runs, and the engine that these ask for."""

import argparse
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_data.executors import EXECUTORS, available_cores, make_executor
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.settings import key_values

# Cluster schedulers do the queueing themselves; only processes of this machine are given little at a time.
_IN_FLIGHT_ON_CLUSTERS = 10_000


def add_executor_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--executor", choices=EXECUTORS, default="local", help="where the work is done")
    parser.add_argument("--workers", type=int, help="processes (jobs) at a time; None: one for every core")
    parser.add_argument(
        "--dask_scheduler", metavar="ADDRESS", help="a running Dask scheduler; None: a cluster of our own"
    )
    parser.add_argument("--slurm_cluster", choices=["slurm", "local"], help='"local" runs the jobs without Slurm')
    parser.add_argument(
        "--slurm_option", action="append", default=[], metavar="NAME=VALUE",
        help="for submitit, like slurm_partition=cpu or timeout_min=60; repeatable",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def executor_opener(arguments: argparse.Namespace, slurm_folder: Path) -> Callable[[], Executor]:
    """What makes an executor as the flags ask for it.

    Args:
        arguments: what a parser with these flags gave.
        slurm_folder: where Slurm jobs keep their files: on a file system that all nodes share.

    Raises:
        UsageError: a flag's value is out of range.
    """
    return functools.partial(
        make_executor,
        arguments.executor,
        _workers(arguments),
        dask_scheduler=arguments.dask_scheduler,
        slurm_folder=slurm_folder,
        slurm_cluster=arguments.slurm_cluster,
        slurm_parameters=key_values(arguments.slurm_option),
    )


def make_engine(arguments: argparse.Namespace, slurm_folder: Path) -> Engine:
    """The engine that the flags ask for; it opens its executor when there is work. Arguments as `executor_opener`'s."""
    open_executor, workers = executor_opener(arguments, slurm_folder), _workers(arguments)
    in_flight = 2 * workers if arguments.executor == "local" else _IN_FLIGHT_ON_CLUSTERS
    return Engine(open_executor, workers, in_flight, progress=not arguments.quiet)


def _workers(arguments: argparse.Namespace) -> int:
    if arguments.workers is not None and arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers} is too few: at least 1 is needed")
    return arguments.workers or available_cores()
