"""Worker processes that a server starts, and starts again when they die."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import fields
from typing import IO, Any

from cs336_scaling.server.leases import LeaseBook
from cs336_scaling.server.settings import ServerSettings

_SECONDS_TO_SAVE = 60
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0


class WorkerPool:
    """While this context is open, `size` workers run.

    A worker that dies is missed at once, not only when its lease expires: its experiment goes back to the queue and
    another worker takes its place.

    Args:
        size: how many.
        flags: the worker command's flags, which say the server's settings.
        leases: to take experiments back from the dead.
        output: an open file for what the workers say; None: this process's own standard output and error.
    """

    def __init__(self, size: int, flags: Sequence[str], leases: LeaseBook, output: IO[Any] | None = None) -> None:
        self._flags, self._leases, self._output = list(flags), leases, output
        self._stopping = threading.Event()
        self._processes: dict[int, subprocess.Popen] = {}
        self._threads = [threading.Thread(target=self._keep_one, args=(index,)) for index in range(size)]

    def __enter__(self) -> "WorkerPool":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ask all workers to save and end; those that do not within a minute are killed."""
        self._stopping.set()
        for process in list(self._processes.values()):
            process.terminate()
        for process in list(self._processes.values()):
            try:
                process.wait(_SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                process.kill()
        for thread in self._threads:
            thread.join()

    def _keep_one(self, index: int) -> None:
        wait = _FIRST_WAIT
        while not self._stopping.is_set():
            name = f"{os.uname().nodename}-{uuid.uuid4().hex[:8]}"
            command = [sys.executable, "-m", "cs336_scaling.server.command", "worker", *self._flags]
            started = time.monotonic()
            process = subprocess.Popen(
                [*command, "--name", name, "--parent", str(os.getpid())], stdout=self._output, stderr=self._output
            )
            self._processes[index] = process
            if self._stopping.is_set():
                process.terminate()
            code = process.wait()
            self._leases.reclaim(name)
            if time.monotonic() - started > _LONGEST_WAIT:
                wait = _FIRST_WAIT  # it is not one that dies as soon as it starts
            if not self._stopping.is_set():
                print(f"worker {name} ended with code {code}; starting another in {wait:g} s", file=sys.stderr)
            self._stopping.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def worker_flags(settings: ServerSettings, workers: int, threads: int | None = None) -> list[str]:
    """The flags that give each of so many workers a server's settings.

    Args:
        settings: the server's.
        workers: how many share the machine.
        threads: CPU threads of each; None: OMP_NUM_THREADS, else its share of the cores.
    """
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // workers)
    flags = ["--data-dir", str(settings.data_dir)]
    if threads is not None:
        flags += ["--threads", str(threads)]
    if settings.database_url is not None:
        flags += ["--database", settings.database_url]
    for field in fields(settings.train):
        flags += [f"--{field.name.replace('_', '-')}", str(getattr(settings.train, field.name))]
    return flags
