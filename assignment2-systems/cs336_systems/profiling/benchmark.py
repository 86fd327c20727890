"""The command that times model sizes and counts their memory: one table for all of them."""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import psutil
import torch
from tqdm import tqdm

from cs336_basics.accounting import forward_flops_per_token, num_parameters
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.machine import machine_description
from cs336_systems.attention_choice import ATTENTION_NAMES
from cs336_systems.model_sizes import SIZES, VOCAB_SIZE, model_size
from cs336_systems.profiling.measure import Plan, measure, measure_in_fresh_process
from cs336_systems.profiling.memory import check_snapshot_device
from cs336_systems.profiling.timing import Timing
from cs336_systems.profiling.workload import Case, Mode
from cs336_systems.result_log import ResultLog
from cs336_systems.result_table import ResultTable

PHASES = ("forward", "backward", "optimizer")
_CASE_COLUMNS = ["size", "parameters, M", "context", "dtype", "attention"]
_SHAPE_FLAGS = ("d_model", "d_ff", "num_layers", "num_heads")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description="Time forward pass, backward pass and optimizer of the handout's model sizes, and count their peak "
        "memory. Every combination of the values given is one row; a case that runs out of memory says so in its row.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--sizes", nargs="+", default=["small"], metavar="SIZE", help=f"of {', '.join(SIZES)}")
    add("--context_len", nargs="+", type=int, default=[128], metavar="N", help="tokens per sequence")
    add("--batch_size", type=int, default=4, help="sequences per batch")
    add("--vocab_size", type=int, default=VOCAB_SIZE, help="number of token ids")
    for name in _SHAPE_FLAGS:
        add(f"--{name}", type=int, default=None, help="instead of the named size's; none: keep it")
    add(
        "--modes",
        nargs="+",
        choices=get_args(Mode),
        default=["forward", "forward_backward", "step"],
        help="inference: forward pass without autograd; forward: with it; step: with AdamW",
    )
    add("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32"], help="bfloat16: autocast")
    add("--attention", nargs="+", choices=ATTENTION_NAMES, default=["plain"], help="the attention function")
    add("--compile", action="store_true", help="torch.compile the model")
    add("--warmup", type=int, default=None, help="runs before those that count; none: 5 on a GPU, else 1")
    add("--steps", type=int, default=None, help="runs that count; none: 10 on a GPU, else 5")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--seed", type=int, default=0, help="of the weights and the batch")
    add("--out", type=Path, default=Path("runs/benchmark"), help="folder of the tables, traces and snapshots")
    add("--trace", action="store_true", help="also trace two runs of each case: timeline (.json) and operators (.txt)")
    add("--memory_snapshot", action="store_true", help="on CUDA, also record a snapshot for pytorch.org/memory_viz")
    add(
        "--memory_limit",
        type=float,
        default=None,
        help="GB (10^9 bytes) of main memory for one case on a CPU; none: 90 %% of what is free at the start",
    )
    add("--in_process", action="store_true", help="all cases in this process: for debuggers; no limit, peaks add up")
    add("--resume", action="store_true", help="go on with an interrupted run: keep the results in the folder")
    add("--smoke", action="store_true", help="size mini, one warm-up run, two that count: less than a minute")
    return parser


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """Every combination that the arguments ask for.

    Raises:
        UsageError: a size is unknown, or a number is out of range.
    """
    for name, least in (("batch_size", 1), ("warmup", 0), ("steps", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}; allowed is any whole number of at least {least}")
    changes = {name: getattr(arguments, name) for name in _SHAPE_FLAGS}
    label = "*" if any(value is not None for value in changes.values()) else ""
    combinations = itertools.product(
        arguments.sizes, arguments.context_len, arguments.dtype, arguments.attention, arguments.modes
    )
    return [
        Case(
            size + label,
            model_size(size, context, vocab_size=arguments.vocab_size, **changes),
            arguments.batch_size,
            mode,
            dtype,
            attention,
            arguments.compile,
        )
        for size, context, dtype, attention, mode in combinations
    ]


def plan_of(arguments: argparse.Namespace) -> Plan:
    """How the arguments ask for the cases to be measured.

    Raises:
        UsageError: the device is not here, or does not go with a snapshot; or a number is out of range.
    """
    device = resolve_device(arguments.device)
    if arguments.memory_snapshot:
        check_snapshot_device(device)
    limit = arguments.memory_limit
    if limit is not None and not limit > 0:
        raise UsageError(f"memory_limit is {limit}; allowed is any number of GB above 0")
    limit = 0.9 * psutil.virtual_memory().available if limit is None else limit * 1e9
    on_gpu = device.type != "cpu"
    return Plan(
        device,
        warmup=(5 if on_gpu else 1) if arguments.warmup is None else arguments.warmup,
        steps=(10 if on_gpu else 5) if arguments.steps is None else arguments.steps,
        seed=arguments.seed,
        threads=torch.get_num_threads(),
        memory_limit=None if on_gpu else int(limit),
        trace_folder=arguments.out / "traces" if arguments.trace else None,
        snapshot_folder=arguments.out / "snapshots" if arguments.memory_snapshot else None,
    )


def _case_cells(case: Case) -> list:
    return [case.size, num_parameters(case.config) / 1e6, case.config.context_length, case.dtype, case.attention]


def _flops(case: Case) -> int:
    # The backward pass does each product of the forward pass twice, once for the gradient of each factor.
    passes = 1 if case.mode in ("inference", "forward") else 3
    return passes * forward_flops_per_token(case.config) * case.tokens


def timing_table(results: Sequence[tuple[Case, dict[str, Any]]]) -> ResultTable:
    """Milliseconds of each phase (means), of the whole (mean, standard deviation, median), and speeds by the median."""
    columns = [*(f"{phase}, ms" for phase in PHASES), "mean, ms", "std, ms", "median, ms", "tokens/s", "TFLOP/s"]
    table = ResultTable([*_CASE_COLUMNS, "mode", *columns])
    for case, result in results:
        row = [*_case_cells(case), case.mode]
        if "error" in result:
            table.rows.append(row + [None] * len(PHASES) + [result["error"], None, None, None, None])
            continue
        phases = {phase: Timing(tuple(seconds)) for phase, seconds in result["seconds"].items()}
        total = Timing(tuple(map(sum, zip(*result["seconds"].values(), strict=True))))
        row += [1e3 * phases[phase].mean if phase in phases else None for phase in PHASES]
        row += [1e3 * total.mean, 1e3 * total.std, 1e3 * total.median]
        table.rows.append([*row, case.tokens / total.median, _flops(case) / total.median / 1e12])
    return table


def memory_table(results: Sequence[tuple[Case, dict[str, Any]]]) -> ResultTable:
    """Peak memory in MB (10^6 bytes), one column for each mode, beside what was taken before there was a model."""
    modes = list(dict.fromkeys(case.mode for case, _ in results))
    rows: dict[tuple, dict[str, Any]] = {}
    for case, result in results:
        rows.setdefault(tuple(_case_cells(case)), {})[case.mode] = result
    table = ResultTable([*_CASE_COLUMNS, "before, MB", *(f"{mode}, MB" for mode in modes)])
    for cells, by_mode in rows.items():
        before = [result["bytes_before"] / 1e6 for result in by_mode.values() if "bytes_before" in result]
        peaks = [by_mode.get(mode, {"error": None}) for mode in modes]
        table.rows.append(
            [*cells, max(before, default=None)]
            + [result["error"] if "error" in result else result["peak_bytes"] / 1e6 for result in peaks]
        )
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """The command: measure every case and write the tables."""
    arguments = build_parser().parse_args(argv)
    if arguments.smoke:
        arguments.sizes, arguments.context_len, arguments.vocab_size = ["mini"], [32], 128
        arguments.warmup, arguments.steps = 1, 2
    cases, plan = cases_of(arguments), plan_of(arguments)
    log = ResultLog(arguments.out / "results.jsonl", arguments.resume)
    run = measure if arguments.in_process else measure_in_fresh_process
    settings = {name: str(value) for name, value in asdict(plan).items() if name in ("device", "warmup", "steps")}
    results: list[tuple[Case, dict[str, Any]]] = []
    for case in tqdm(cases, unit="case", dynamic_ncols=True):
        key = case.to_dict() | settings
        result = log.find(key)
        if result is None:
            result = run(case, plan)
            log.add(key, result)
        results.append((case, result))
        timing_table(results).write(arguments.out, "timings")
        memory_table(results).write(arguments.out, "memory")
    description = ", ".join(f"{name}: {value}" for name, value in machine_description(plan.device).items())
    print(f"{description}\nbatch {arguments.batch_size}, {plan.warmup} + {plan.steps} runs per case\n")
    print(f"{timing_table(results).markdown()}\n\nPeak memory\n\n{memory_table(results).markdown()}\n")
    print(f"tables (.md, .tex, .csv): {arguments.out}")
    for folder in filter(None, (plan.trace_folder, plan.snapshot_folder)):
        print(f"one file for each case: {folder}")
