"""Groups of processes: joining one that torchrun started, or starting one on this machine."""

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

TIMEOUT = timedelta(minutes=10)
"""How long a collective waits for the other ranks."""


def backend_for(device: torch.device) -> str:
    """The communication library for tensors on `device`: NCCL for CUDA, gloo for the CPU."""
    return "nccl" if device.type == "cuda" else "gloo"


@contextmanager
def process_group(device: torch.device, **arguments: Any) -> Generator[None, None, None]:
    """Be a member of the default process group: by default the one that torchrun's environment variables describe.

    Args:
        device: where this rank's tensors lie; it decides between NCCL and gloo.
        arguments: handed to `torch.distributed.init_process_group`.
    """
    dist.init_process_group(backend_for(device), timeout=TIMEOUT, **arguments)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _run_rank(
    rank: int, world_size: int, folder: str, num_threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(num_threads)
    # Some libraries read these instead of asking the process group.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    # Ranks meet through a file, so that groups started at the same time never compete for a port.
    meeting_place = f"file://{folder}/meeting_place"
    with process_group(torch.device("cpu"), init_method=meeting_place, rank=rank, world_size=world_size):
        result = function(*arguments)
    torch.save(result, Path(folder) / f"{rank}.pt")


def run_in_processes(function: Callable[..., Any], world_size: int, *arguments: Any, num_threads: int = 1) -> list[Any]:
    """Call a function in `world_size` new processes that form a gloo group on the CPU.

    Args:
        function: a module-level function, called with `arguments`.
        world_size: number of processes.
        num_threads: torch's threads in each of them.

    Returns:
        What the function returned, by rank.

    Raises:
        torch.multiprocessing.ProcessRaisedException: with the traceback of the first rank that failed; the others are
            ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(
            _run_rank, args=(world_size, folder, num_threads, function, arguments), nprocs=world_size, join=True
        )
        # Our own processes wrote these files, so anything that pickles may be in them.
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world_size)]
