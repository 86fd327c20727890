"""The program that measures collectives: which cases there are, which of them fit, and what is left to measure."""

import argparse
import platform
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import torch
import torch.distributed as dist

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.machine import processor_name
from cs336_systems.communication.collectives import COLLECTIVES
from cs336_systems.communication.measure import Case, available_memory, measure_cases
from cs336_systems.communication.report import Measurement, make_table, plot
from cs336_systems.process_group import (
    backend_for,
    check_local_processes,
    process_group,
    rank_device,
    run_in_processes,
    started_by_torchrun,
)
from cs336_systems.result_log import ResultLog

LOG_NAME = "results.jsonl"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="communication.py",
        description="Measure collectives between processes: gloo on the CPU, NCCL with one GPU per process. Results "
        "are kept one by one: started again with the same flags, the program measures only what is missing. Under "
        "torchrun it measures the group that torchrun started, on however many nodes, in place of --processes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--collectives", nargs="+", default=["all-reduce", "all-gather", "reduce-scatter"], choices=list(COLLECTIVES),
        help="what to measure",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", nargs="+", type=float, default=[1, 10, 100, 1000], help="sizes in MB (10^6 bytes): the larger of a "
        "rank's input and output"
    )  # fmt: skip
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4, 6], help="numbers of processes")
    parser.add_argument("--warm_up", type=int, default=3, help="runs of each case before timing")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each case; the median counts")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="type of the elements")
    parser.add_argument("--device", default="auto", help="auto, cuda (NCCL) or cpu (gloo)")
    parser.add_argument("--out_dir", type=Path, default=Path("communication"), help="folder for results, tables, plot")
    parser.add_argument("--fresh", action="store_true", help="measure everything anew")
    parser.add_argument("--smoke", action="store_true", help="a small run: 0.1 and 1 MB, 2 processes, 3 repeats")
    return parser


def make_cases(given: argparse.Namespace, backend: str) -> list[Case]:
    """All cases the command line asks for, those of one number of processes together.

    Raises:
        UsageError: a number is out of range.
    """
    for name, values, least in (
        ("sizes", given.sizes, 1e-6), ("processes", given.processes, 2), ("warm_up", [given.warm_up], 0),
        ("repeats", [given.repeats], 1),
    ):  # fmt: skip
        for value in values:
            if not least <= value < float("inf"):
                raise UsageError(f"{name} is {value}; allowed is any finite number of at least {least}")
    return [
        Case(name, round(megabytes * 1e6), processes, backend, given.dtype, given.warm_up, given.repeats)
        for processes in dict.fromkeys(given.processes)
        for name in dict.fromkeys(given.collectives)
        for megabytes in dict.fromkeys(given.sizes)
    ]


def without_room(cases: Sequence[Case], device: torch.device) -> dict[Case, str]:
    """The cases whose buffers this machine cannot hold, and a sentence on each."""
    reasons = {}
    for case in cases:
        available = available_memory(device, case.processes)
        if case.needed_memory > available:
            reasons[case] = (
                f"does not fit: needs {case.needed_memory / 1e6:,.0f} MB per process, "
                f"{max(0, available) / 1e6:,.0f} MB are free"
            )
    return reasons


def collect(cases: Sequence[Case], log: ResultLog, reasons: dict[Case, str]) -> list[Measurement]:
    """What is known of each case."""
    measurements = []
    for case in cases:
        result = log.find(asdict(case))
        if result is None:
            measurements.append(Measurement(case, [], reasons.get(case, "not measured")))
        else:
            note = "" if result["seconds"] else "out of memory"
            measurements.append(Measurement(case, result["seconds"] or [], note))
    return measurements


def write_results(measurements: Sequence[Measurement], device: torch.device, folder: Path) -> None:
    """Print the table and write it, and the plot, into the folder."""
    backend = measurements[0].case.backend
    title = f"{backend} on {processor_name(device)}, torch {torch.__version__}, {platform.system()}"
    table = make_table(measurements)
    print(f"{title}\n\n{table.markdown()}\n")
    paths = table.write(folder, "communication")
    if any(one.seconds for one in measurements):
        paths.append(folder / "communication.png")
        with atomic_write(paths[-1]) as file:
            file.write(plot(measurements, title))
    print("written: " + ", ".join(map(str, paths)))


def measure_own_group(given: argparse.Namespace, device: torch.device, log_path: Path) -> None:
    """What `main` does in each process of a group that torchrun started; rank 0 reads and writes the files."""
    given.processes = [dist.get_world_size()]
    cases = make_cases(given, backend_for(device))
    missing = [cases]
    if dist.get_rank() == 0:
        log = ResultLog(log_path, resume=not given.fresh)
        missing = [[case for case in cases if log.find(asdict(case)) is None]]
    dist.broadcast_object_list(missing, 0)
    measure_cases(missing[0], device, log_path)
    if dist.get_rank() == 0:
        write_results(collect(cases, ResultLog(log_path, resume=True), {}), device, given.out_dir)


def main(argv: Sequence[str] | None = None) -> None:
    """The program."""
    given = build_parser().parse_args(argv)
    if given.smoke:
        given.sizes, given.processes, given.repeats, given.warm_up = [0.1, 1], [2], 3, 1
    device = resolve_device(given.device)
    if device.type not in ("cpu", "cuda"):
        device = torch.device("cpu")  # there is no communication library for Apple's GPUs
    backend = backend_for(device)
    log_path = given.out_dir / LOG_NAME
    if started_by_torchrun():
        with process_group(rank_device(device)):
            measure_own_group(given, device, log_path)
        return
    cases = make_cases(given, backend)
    check_local_processes(max(given.processes), device)
    log = ResultLog(log_path, resume=not given.fresh)
    reasons = without_room(cases, device)
    missing = [case for case in cases if case not in reasons and log.find(asdict(case)) is None]
    for processes, group in groupby(missing, key=lambda case: case.processes):
        run_in_processes(measure_cases, processes, list(group), device, log_path, device=device)
    write_results(collect(cases, ResultLog(log_path, resume=True), reasons), device, given.out_dir)
