"""A trace of a few steps by `torch.profiler`: a timeline for Perfetto or chrome://tracing, and the top operators."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from cs336_basics.atomic_file import atomic_write

TOP_OPERATORS = 20


def trace_calls(function: Callable[[], object], calls: int, device: torch.device, path: Path) -> None:
    """Trace calls of a function, into a timeline and a table of the operators that took most time themselves.

    Args:
        function: what is traced; its ranges from `annotate.profiler_range` are in the trace.
        calls: number of calls.
        device: CUDA adds the GPU's kernels.
        path: the timeline, a JSON file. The table is written beside it, with the ending .operators.txt: time on the
            device, where there is one, and the memory that each operator allocated.
    """
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities, record_shapes=True, profile_memory=True) as profiler:
        for _ in range(calls):
            function()
    with atomic_write(path) as file:
        profiler.export_chrome_trace(file.name)
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=order, row_limit=TOP_OPERATORS, max_name_column_width=40)
    with atomic_write(path.with_suffix(".operators.txt"), "w") as file:
        file.write(table)
