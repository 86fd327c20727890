"""Measure one case: time, peak memory, and on request a trace or a memory snapshot. Memory that ran out is a result."""

import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cs336_systems.out_of_memory import is_out_of_memory
from cs336_systems.profiling.annotate import default_range, profiler_range
from cs336_systems.profiling.memory import current_bytes, limit_main_memory, memory_snapshot, peak_bytes
from cs336_systems.profiling.trace import trace_calls
from cs336_systems.profiling.workload import Case, Workload

OUT_OF_MEMORY = "out of memory"
DIED = "the process died (out of memory?)"
TRACED_STEPS = 2


@dataclass(frozen=True)
class Plan:
    """How every case is measured.

    Attributes:
        device: where.
        warmup: runs before those that count.
        steps: runs that count.
        seed: of weights and batches.
        threads: torch's threads on a CPU.
        memory_limit: bytes of main memory that a case in a process of its own may take; None does not limit it.
        trace_folder: where traces go; None makes none.
        snapshot_folder: where memory snapshots go; None makes none.
    """

    device: torch.device
    warmup: int = 5
    steps: int = 10
    seed: int = 0
    threads: int | None = None
    memory_limit: int | None = None
    trace_folder: Path | None = None
    snapshot_folder: Path | None = None


def measure(case: Case, plan: Plan) -> dict[str, Any]:
    """Measure a case in this process.

    Returns:
        `seconds`: for each phase the list of its times. `peak_bytes`: the most memory taken; `bytes_before`: what was
        taken before the model was made. Or, if memory ran out, `error`: a sentence.
    """
    # The first optimizer imports it: 150 MB of main memory that no case should be charged with.
    importlib.import_module("torch._dynamo")
    bytes_before = current_bytes(plan.device)
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    try:
        seconds = _run(case, plan)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {"error": OUT_OF_MEMORY}
    finally:
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()
    return {"seconds": seconds, "peak_bytes": peak_bytes(plan.device), "bytes_before": bytes_before}


def _run(case: Case, plan: Plan) -> dict[str, list[float]]:
    snapshot = nullcontext()
    if plan.snapshot_folder is not None:
        snapshot = memory_snapshot(plan.snapshot_folder / f"{case.name}.pickle")
    make_range = default_range(plan.device)
    with snapshot:
        workload = Workload(case, plan.device, plan.seed)
        with workload.in_ranges(make_range):
            for _ in range(plan.warmup):
                with make_range("warm-up step"):
                    workload.run()
            runs = []
            for _ in range(plan.steps):
                with make_range("measured step"):
                    runs.append(workload.run())
    if plan.trace_folder is not None:
        with workload.in_ranges(profiler_range):
            trace_calls(workload.run, TRACED_STEPS, plan.device, plan.trace_folder / f"{case.name}.json")
    return {phase: [run[phase] for run in runs] for phase in runs[0]}


def _measure_alone(case: Case, plan: Plan) -> dict[str, Any]:
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    if plan.memory_limit is not None:
        limit_main_memory(plan.memory_limit)
    return measure(case, plan)


def measure_in_fresh_process(case: Case, plan: Plan) -> dict[str, Any]:
    """`measure` in a process of its own, which starts with no memory taken and takes nobody along if it dies."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        try:
            return executor.submit(_measure_alone, case, plan).result()
        except BrokenProcessPool:
            return {"error": DIED}
