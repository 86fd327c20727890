"""How much memory a process takes at its peak, and a limit that turns too much of it into an error.

On CUDA the allocator counts the tensors. On a CPU there is only the process as a whole, interpreter and libraries
included, and freed memory may stay with it: measure in a fresh process, and look at what it held before.
"""

import re
import resource
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError

_STATUS = Path("/proc/self/status")


def _status_bytes(name: str) -> int:
    return int(re.search(rf"{name}:\s*(\d+) kB", _STATUS.read_text()).group(1)) * 1024


def current_bytes(device: torch.device) -> int:
    """Bytes in tensors on a CUDA device, else this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def peak_bytes(device: torch.device) -> int:
    """The most bytes there ever were in tensors on a CUDA device, else of this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():  # unlike the number below, this one begins with the process, not with the one that started it
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_growth(function: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call takes at its peak beyond what is taken when it begins.

    Args:
        function: what is called.
        device: CUDA counts its tensors, a CPU this process.

    Returns:
        The bytes; None on other devices, and on a CPU without Linux, where the count of the peak cannot begin anew.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu" and _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")
    else:
        return None
    before = current_bytes(device)
    function()
    return max(0, peak_bytes(device) - before)


def limit_main_memory(additional_bytes: int) -> None:
    """From now on, let allocations fail once this process holds that much more than it does now.

    So a case that is too large ends in an error, where the system would otherwise swap or end some process. Only Linux
    keeps to such a limit; elsewhere nothing happens.
    """
    if _STATUS.exists():
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = _status_bytes("VmData") + additional_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def check_snapshot_device(device: torch.device) -> None:
    """Refuse a memory snapshot of anything but a CUDA device.

    Raises:
        UsageError: the device is another one.
    """
    if device.type != "cuda":
        raise UsageError(
            f"memory snapshots record the CUDA allocator, and the device is {device.type!r}; use --trace, which counts "
            "each operator's memory on any device"
        )


@contextmanager
def memory_snapshot(path: Path) -> Generator[None, None, None]:
    """Record every allocation on the CUDA devices within the block into a file for https://pytorch.org/memory_viz.

    The file is written also if the block runs out of memory: then it shows what filled it.
    """
    torch.cuda.memory._record_memory_history(max_entries=1_000_000)
    try:
        yield
    finally:
        with atomic_write(path) as file:
            torch.cuda.memory._dump_snapshot(file.name)
        torch.cuda.memory._record_memory_history(enabled=None)
