"""Groups of processes: joining one that torchrun started, or starting one on this machine."""

import json
import os
import tempfile
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from cs336_basics.command_line import UsageError

TIMEOUT = timedelta(minutes=10)
"""How long a collective waits for the other ranks."""
_PRELOADED = ["torch", "torch._dynamo"]
"""The imports that take longest; making an optimizer needs the second."""
_FIRST_FAILURE = "first_failure.json"


def backend_for(device: torch.device) -> str:
    """The communication library for tensors on `device`: NCCL for CUDA, gloo for the CPU."""
    return "nccl" if device.type == "cuda" else "gloo"


def started_by_torchrun() -> bool:
    """Whether torchrun, or anything that sets the same environment variables, started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def rank_device(device: torch.device) -> torch.device:
    """This rank's device: with CUDA the GPU of number LOCAL_RANK, which becomes the current one."""
    if device.type != "cuda":
        return device
    mine = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(mine)
    return mine


def check_local_processes(number: int, device: torch.device) -> None:
    """Refuse a number of processes that this machine cannot run.

    Raises:
        UsageError: it is below 1, or there are fewer GPUs (NCCL takes one for each rank).
    """
    if number < 1:
        raise UsageError(f"processes is {number}; allowed is any whole number of at least 1")
    if device.type == "cuda" and number > torch.cuda.device_count():
        raise UsageError(
            f"processes is {number}, but each needs a GPU of its own and there are {torch.cuda.device_count()}; "
            "ask for fewer, or for --device cpu"
        )


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


@contextmanager
def local_process_group(rank: int, world_size: int, folder: str, device: torch.device) -> Generator[None, None, None]:
    """Be one of the processes that this machine alone started.

    Args:
        rank, world_size: this process's number, and how many there are.
        folder: the same empty folder for all of them; they meet through a file in it, so that groups started at the
            same time never compete for a port.
        device: the kind of device that tensors lie on; see `rank_device`.
    """
    # Some libraries read these instead of asking the process group.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    meeting_place = f"file://{folder}/meeting_place"
    with process_group(rank_device(device), init_method=meeting_place, rank=rank, world_size=world_size):
        yield


def _run_rank(
    rank: int,
    world_size: int,
    folder: str,
    device: torch.device,
    num_threads: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(num_threads)
    with local_process_group(rank, world_size, folder, device):
        try:
            result = function(*arguments)
        except Exception:
            _note_failure(rank, folder)
            raise
    torch.save(result, Path(folder) / f"{rank}.pt")


def _note_failure(rank: int, folder: str) -> None:
    """Leave this rank's traceback in the folder, unless another rank failed before.

    When a failed rank leaves the group, ranks that wait for it fail as well, and may end earlier than it does.
    """
    failure = {"msg": f"rank {rank}:\n{traceback.format_exc()}", "error_index": rank, "error_pid": os.getpid()}
    with suppress(FileExistsError), open(Path(folder) / _FIRST_FAILURE, "x", encoding="utf-8") as file:
        json.dump(failure, file)


def run_in_processes(
    function: Callable[..., Any],
    world_size: int,
    *arguments: Any,
    num_threads: int = 1,
    device: torch.device | str = "cpu",
    start_method: Literal["forkserver", "spawn"] = "forkserver",
) -> list[Any]:
    """Call a function in `world_size` new processes that form a group.

    Args:
        function: a module-level function, called with `arguments`.
        world_size: number of processes.
        num_threads: torch's threads in each of them.
        device: "cpu" for a gloo group, "cuda" for an NCCL group with one GPU for each rank.
        start_method: "forkserver" forks a server that has imported torch once, with the environment variables of that
            moment; "spawn" starts Python anew each time, which takes seconds longer.

    Returns:
        What the function returned, by rank.

    Raises:
        torch.multiprocessing.ProcessRaisedException: with the traceback of the first rank that failed; the others are
            ended.
        UsageError: there are fewer GPUs than processes.
    """
    device = torch.device(device)
    check_local_processes(world_size, device)
    forkserver.set_forkserver_preload(_PRELOADED)  # counts until the server starts
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.start_processes(
            _run_rank,
            args=(world_size, folder, device, num_threads, function, arguments),
            nprocs=world_size,
            join=False,
            start_method=start_method,
        )
        try:
            while not context.join():
                pass
        except multiprocessing.ProcessRaisedException:
            first = Path(folder) / _FIRST_FAILURE
            if not first.exists():  # the group never came about
                raise
            raise multiprocessing.ProcessRaisedException(**json.loads(first.read_text(encoding="utf-8"))) from None
        finally:
            for process in context.processes:
                process.kill()  # after Ctrl-C; at any other end there is none left
        # Our own processes wrote these files, so anything that pickles may be in them.
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world_size)]
