"""Timing collectives in a group of processes, one case after the other, each stored before the next one begins."""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from tqdm import tqdm

from cs336_systems.communication.collectives import Buffers, Collective, collective
from cs336_systems.out_of_memory import is_out_of_memory
from cs336_systems.process_group import backend_for, rank_device
from cs336_systems.result_log import ResultLog

PROCESS_BYTES = 300 * 2**20
"""What a process with torch in it takes before it holds any data."""
SPARE_SHARE = 0.1
"""Of the free memory, left to others."""


@dataclass(frozen=True)
class Case:
    """One measurement; `asdict` of it is what stands in the log.

    Attributes:
        collective: its name. size: bytes, as the collectives' module counts them. processes: ranks.
        backend: "gloo" or "nccl". dtype: of the elements. warm_up, repeats: runs before and during timing.
    """

    collective: str
    size: int
    processes: int
    backend: str
    dtype: str
    warm_up: int
    repeats: int

    @property
    def needed_memory(self) -> int:
        """Bytes that one rank's buffers take."""
        return collective(self.collective).memory(self.size, self.processes, self.backend)


def available_memory(device: torch.device, processes: int) -> int:
    """Bytes that each of `processes` ranks on this machine may fill; every rank has a GPU of its own under CUDA."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * (1 - SPARE_SHARE))
    return int(psutil.virtual_memory().available * (1 - SPARE_SHARE)) // processes - PROCESS_BYTES


def _all_can(flag: bool, device: torch.device) -> bool:
    agreed = torch.tensor(int(flag), device=device)
    dist.all_reduce(agreed, dist.ReduceOp.MIN)
    return bool(agreed.item())


def _allocate(kind: Collective, case: Case, device: torch.device) -> Buffers | None:
    """The case's buffers, touched once; None on every rank if any of them has no room."""
    try:
        buffers = kind.buffers(case.size, getattr(torch, case.dtype), device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        buffers = None
    return buffers if _all_can(buffers is not None, device) else None


def time_collective(case: Case, device: torch.device) -> list[float] | None:
    """Seconds of each repeat, of the slowest rank; None if the buffers do not fit. All ranks call it together.

    Raises:
        ArithmeticError: the collective's result is wrong.
    """
    kind = collective(case.collective)
    buffers = _allocate(kind, case, device)
    if buffers is None:
        return None
    kind.check(buffers)
    buffers.fill(0)
    seconds = torch.zeros(case.warm_up + case.repeats, dtype=torch.float64)
    for index in range(len(seconds)):
        dist.barrier()
        _finish(device)
        started = time.perf_counter()
        kind.run(buffers)
        _finish(device)
        seconds[index] = time.perf_counter() - started
    slowest = seconds.to(device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return slowest[case.warm_up :].tolist()


def _finish(device: torch.device) -> None:
    """Wait for the GPU; on the CPU a collective returns when it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_cases(cases: list[Case], device: torch.device, log_path: Path) -> None:
    """Measure the cases, whose `processes` is this group's size, and add each result to the log.

    Args:
        cases: what to measure. Every rank gives the same.
        device: the kind of device.
        log_path: the log, written by rank 0.
    """
    device = rank_device(device)
    assert all(case.processes == dist.get_world_size() for case in cases)
    assert all(case.backend == backend_for(device) for case in cases)
    log = ResultLog(log_path, resume=True) if dist.get_rank() == 0 else None
    title = f"{dist.get_world_size()} processes"
    for case in tqdm(cases, desc=title, unit="case", disable=log is None, file=sys.stderr):
        seconds = time_collective(case, device)
        if log is not None:
            log.add(asdict(case), {"seconds": seconds})
