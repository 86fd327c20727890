"""Where work runs: processes of this machine, Slurm jobs or a Dask cluster, all as `concurrent.futures.Executor`.

    with make_executor("local", workers=8) as executor:
        results = list(executor.map(function, items))

Left by an exception (Ctrl-C), the `with` block stops what still runs instead of waiting for it. Functions and arguments
are pickled; on Slurm and on Dask clusters of several machines the files they name must lie on a shared file system, and
the workers need this project's environment.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from cs336_basics.command_line import UsageError

EXECUTORS = ("local", "slurm", "dask")


def make_executor(
    kind: str = "local",
    workers: int | None = None,
    *,
    dask_scheduler: str | None = None,
    slurm_folder: str | os.PathLike = "slurm_jobs",
    slurm_cluster: str | None = None,
    slurm_parameters: dict[str, Any] | None = None,
) -> Executor:
    """An executor, which is also a context manager.

    Args:
        kind: "local" (processes of this machine), "slurm" (one job per task, by submitit) or "dask".
        workers: tasks that run at a time; None takes one for every core this process may use. A Dask cluster that runs
            already has the workers it has.
        dask_scheduler: address of a running Dask scheduler ("tcp://host:8786"); None starts a cluster on this machine.
        slurm_folder: where submitit keeps pickled tasks, results and logs: on a file system that all nodes share.
        slurm_cluster: "local" runs the jobs as processes of this machine, without Slurm; None asks for Slurm.
        slurm_parameters: what submitit passes to Slurm (`slurm_partition`, `timeout_min`, `mem_gb`, …).

    Raises:
        UsageError: for an unknown kind, less than one worker, a scheduler that does not answer, or a missing Slurm.
    """
    if kind not in EXECUTORS:
        raise UsageError(f"executor {kind!r} is unknown: it must be one of {', '.join(EXECUTORS)}")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers are too few: at least 1 is needed")
    if kind == "local":
        return LocalExecutor(workers or available_cores())
    if kind == "dask":
        return DaskExecutor(workers or available_cores(), dask_scheduler)
    return SlurmExecutor(workers or available_cores(), slurm_folder, slurm_cluster, slurm_parameters)


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _StoppingExecutor(Executor, ABC):
    """An executor whose `with` block, left by an exception, stops running tasks."""

    @abstractmethod
    def stop(self) -> None:
        """End everything that runs or waits, soon; only a Dask cluster of others may finish what it has begun."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.shutdown(wait=True)
        else:
            self.stop()


class LocalExecutor(ProcessPoolExecutor, _StoppingExecutor):
    """Processes of this machine. They are started afresh (`spawn`), and end with their parent even if it is killed."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)

    def stop(self) -> None:
        processes = list((self._processes or {}).values())  # public from Python 3.14 on: terminate_workers()
        self.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()

    __exit__ = _StoppingExecutor.__exit__


def _begin_worker() -> None:
    # The terminal sends Ctrl-C to all processes; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


class DaskExecutor(_StoppingExecutor):
    """A Dask cluster: one that runs already, or one of this machine's processes. Tasks of a lost worker run again."""

    def __init__(self, workers: int, scheduler: str | None = None) -> None:
        from distributed import Client, LocalCluster

        self.cluster = None
        if scheduler is None:
            self.cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
            )
        try:
            self.client = Client(scheduler or self.cluster, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"no Dask scheduler answers at {scheduler!r}: {error}") from None
        # Not pure: a task is run because its files are missing, whatever ran before under the same arguments.
        self._executor = self.client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait=wait and not cancel_futures)
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()

    def stop(self) -> None:
        self.shutdown(wait=False, cancel_futures=True)


def _kill_local_job(job: Any) -> None:
    """Kill a job of submitit's local executor: it cancels by SIGINT, which programs in a shell's background ignore."""
    try:
        controller = psutil.Process(int(job.job_id))
        family = [controller, *controller.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


class SlurmExecutor(_StoppingExecutor):
    """Slurm jobs, by submitit: what is submitted within one poll goes to Slurm as one job array.

    Args:
        workers: jobs of an array that may run at a time.
        folder: for submitit's files.
        cluster: "local" for processes of this machine instead of Slurm.
        parameters: for `submitit.AutoExecutor.update_parameters`.
        poll_seconds: how often finished jobs are looked for.
    """

    # Slurm's usual limit (MaxArraySize) is 1,001.
    _ARRAY_SIZE = 1000
    # submitit's own default is 5 minutes, less than a large file takes.
    _TIME_LIMIT_MINUTES = 12 * 60

    def __init__(
        self,
        workers: int,
        folder: str | os.PathLike = "slurm_jobs",
        cluster: str | None = None,
        parameters: dict[str, Any] | None = None,
        poll_seconds: float = 0.2,
    ) -> None:
        import submitit

        try:
            self._submitit = submitit.AutoExecutor(folder=Path(folder), cluster=cluster or "slurm")
            defaults = {"slurm_array_parallelism": workers, "timeout_min": self._TIME_LIMIT_MINUTES}
            self._submitit.update_parameters(**defaults | (parameters or {}))
        except RuntimeError as error:
            raise UsageError(f"Slurm cannot be used on this machine: {error}") from None
        except (NameError, TypeError, AssertionError) as error:  # what submitit raises for names, types and values
            given = ", ".join(f"{name}={value!r}" for name, value in (parameters or {}).items())
            raise UsageError(f"submitit does not take {given}: {str(error).splitlines()[0]}") from None
        self._local = cluster == "local"
        # As processes of this machine, submitit would start all jobs at once.
        self._room = workers if self._local else self._ARRAY_SIZE
        self._poll_seconds = poll_seconds
        self._waiting: list[tuple[Future, _Call]] = []
        self._running: list[tuple[Future, Any]] = []
        self._changed = threading.Condition()
        self._closed = self._stopped = False
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append((future, _Call(fn, args, kwargs)))
            self._changed.notify()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._changed:
            self._closed = True
            if cancel_futures:
                for future, _ in self._waiting:
                    future.cancel()
            self._changed.notify()
        if wait:
            self._server.join()

    def stop(self) -> None:
        self.shutdown(wait=False, cancel_futures=True)
        self._stopped = True  # only now: room that a stopped job leaves must not go to one that waits
        self._server.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed, self._poll_seconds)
                if self._closed and not self._waiting and not self._running:
                    return
                batch = self._next_batch()
            if self._stopped:
                self._cancel_running()
            self._launch(batch)
            self._collect()
            if self._running:
                threading.Event().wait(self._poll_seconds)

    def _cancel_running(self) -> None:
        for _, job in self._running:
            if self._local:
                _kill_local_job(job)
            else:
                job.cancel(check=False)
        for future, job in self._running:
            job.wait()
            future.set_exception(CancelledError())
        self._running = []

    def _next_batch(self) -> list[tuple[Future, "_Call"]]:
        count = self._room - (len(self._running) if self._room < self._ARRAY_SIZE else 0)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return [(future, call) for future, call in batch if future.set_running_or_notify_cancel()]

    def _launch(self, batch: list[tuple[Future, "_Call"]]) -> None:
        if not batch:
            return
        try:
            with self._submitit.batch():
                jobs = [self._submitit.submit(call) for _, call in batch]
        except Exception as error:  # sbatch refused: a wrong partition, a limit
            for future, _ in batch:
                future.set_exception(error)
            return
        self._running += [(future, job) for (future, _), job in zip(batch, jobs, strict=True)]

    def _collect(self) -> None:
        still_running = []
        for future, job in self._running:
            if not job.done():
                still_running.append((future, job))
                continue
            lost = job.exception()  # the job itself failed: killed, out of time or memory
            result, error = (None, lost) if lost else job.result()
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._running = still_running


class _Call:
    """A function with its arguments; what it raises comes back as itself, not as submitit's account of it."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs

    def __call__(self) -> tuple[Any, Exception | None]:
        try:
            return self._fn(*self._args, **self._kwargs), None
        except Exception as error:
            return None, error
