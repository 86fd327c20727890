"""The ranks of a run as processes of this machine: started together, watched, stopped together, ended together.

A rank that dies leaves the others waiting for it in a collective. The watching process sees it die at once, ends the
others, and says which one it was.
"""

import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

from cs336_basics.command_line import UsageError
from cs336_basics.trainer.interrupts import StopRequest
from cs336_systems.process_group import check_local_processes, local_process_group

GRACE_SECONDS = 5.0
"""How long the other ranks get to end by themselves after one has failed."""
_GLANCE_SECONDS = 0.1


class RankFailure(RuntimeError):
    """A rank died, or failed by an error of its own. The message names it."""


class StoppedEarly(KeyboardInterrupt):
    """The ranks were asked to stop before they could hear it."""


def _run_rank(
    rank: int,
    world_size: int,
    folder: str,
    device: torch.device,
    num_threads: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    # In a process group of its own a rank does not get the terminal's Ctrl-C, only what the watching process sends.
    os.setpgid(0, 0)
    torch.set_num_threads(num_threads)
    with ExitStack() as membership:
        try:
            membership.enter_context(local_process_group(rank, world_size, folder, device))
            outcome = ("result", function(*arguments), "")
        except UsageError as error:
            outcome = ("usage", str(error), "")
        except Exception as error:
            outcome = ("error", f"{type(error).__name__}: {error}", traceback.format_exc())
        # Written while the others still have their connection, so that theirs is the later time.
        path = Path(folder) / f"{rank}.outcome"
        path.with_suffix(".part").write_bytes(pickle.dumps((time.monotonic(), *outcome)))
        path.with_suffix(".part").replace(path)
        if outcome[0] != "result":
            sys.stdout.flush()
            # Without the usual clean-up, which may wait for ranks that are gone.
            os._exit(1)


def run_ranks(
    function: Callable[..., Any],
    world_size: int,
    *arguments: Any,
    device: torch.device,
    num_threads: int,
    on_start: Callable[[list[int]], None] = lambda pids: None,
) -> Any:
    """Call a function in `world_size` new processes that form a group, and wait for all of them.

    The first Ctrl-C or SIGTERM is passed on to every rank once, as SIGTERM; a second one ends all at once.

    Args:
        function: a module-level function, called with `arguments`.
        world_size: number of processes.
        device: "cpu" for a gloo group, "cuda" for an NCCL group with one GPU for each rank.
        num_threads: torch's threads in each of them.
        on_start: told the process ids, by rank.

    Returns:
        What rank 0's call returned.

    Raises:
        UsageError: a rank raised it, or this machine cannot run that many.
        RankFailure: a rank was killed or failed by another error; the others have been ended.
        StoppedEarly: the ranks were asked to stop before they listened.
    """
    check_local_processes(world_size, device)
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        given = (world_size, folder, device, num_threads, function, arguments)
        processes = multiprocessing.spawn(_run_rank, args=given, nprocs=world_size, join=False).processes
        try:
            on_start([process.pid for process in processes])
            _watch(processes, stop)
            return _result(processes, Path(folder), stop.requested)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _watch(processes: list[Any], stop: StopRequest) -> None:
    """Wait until all ranks have ended, or one has failed and the others had time to."""
    told, deadline = False, None
    while running := [process for process in processes if process.exitcode is None]:
        if any(process.exitcode for process in processes):
            deadline = deadline or time.monotonic() + GRACE_SECONDS
            if time.monotonic() > deadline:
                return
        if stop.requested and not told:
            told = True
            for process in running:
                process.terminate()
        wait([process.sentinel for process in running], timeout=_GLANCE_SECONDS)


def _result(processes: list[Any], folder: Path, was_stopped: bool) -> Any:
    """Rank 0's result; or whose fault it was that there is none."""
    outcomes = {}
    for rank in range(len(processes)):
        path = folder / f"{rank}.outcome"
        if path.exists():
            outcomes[rank] = pickle.loads(path.read_bytes())  # written by our own processes
    if len(outcomes) == len(processes) and all(kind == "result" for _, kind, _, _ in outcomes.values()):
        return outcomes[0][2]
    killed = [rank for rank, process in enumerate(processes) if process.exitcode is not None and process.exitcode < 0]
    if was_stopped and all(processes[rank].exitcode == -signal.SIGTERM for rank in killed):
        raise StoppedEarly
    if killed:
        number = -processes[killed[0]].exitcode
        how = "the system may have run out of memory" if number == signal.SIGKILL else "see its messages above"
        raise RankFailure(f"rank {killed[0]} (process {processes[killed[0]].pid}) was killed by "
                          f"{signal.Signals(number).name}; {how}")  # fmt: skip
    # The others' errors only say that a connection was lost.
    failed = [(when, rank) for rank, (when, kind, _, _) in outcomes.items() if kind != "result"]
    if not failed:
        dead = next(rank for rank, process in enumerate(processes) if process.exitcode)
        raise RankFailure(
            f"rank {dead} (process {processes[dead].pid}) ended with exit code {processes[dead].exitcode}"
        )
    first = min(failed)[1]
    _, kind, message, trace = outcomes[first]
    if kind == "usage":
        raise UsageError(message)
    raise RankFailure(f"rank {first} (process {processes[first].pid}) failed: {message}\n{trace}")
