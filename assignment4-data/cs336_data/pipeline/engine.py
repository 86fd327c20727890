"""Runs a function over many units on an executor: batches, progress, units that fail, workers that die."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tqdm import tqdm

from cs336_basics.command_line import UsageError

_BATCH_BYTES = 16 * 2**20
_BATCH_UNITS = 64
"""A batch takes seconds: on Dask a task of its own would cost a small file 15 ms, on Slurm seconds."""
_T = TypeVar("_T")


class Sized(Protocol):
    """A unit as the engine sees it."""

    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...


_U = TypeVar("_U", bound=Sized)


class Results(NamedTuple, Generic[_T]):
    """What came out, by the units' keys: the function's results, and for the units that failed one sentence each."""

    done: dict[str, _T]
    failed: dict[str, str]


class Engine:
    """Keeps an executor open through the stages of a run, and replaces it when its processes break down.

    Args:
        open_executor: makes an executor.
        workers: how many tasks it runs at a time (as far as known; decides on the size of batches).
        in_flight: how many tasks it is given at a time.
        progress: whether to show a progress bar.
    """

    def __init__(
        self, open_executor: Callable[[], Executor], workers: int, in_flight: int, progress: bool = True
    ) -> None:
        self._open_executor, self._workers, self._in_flight = open_executor, workers, in_flight
        self._progress = progress
        self._executor: Executor | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(kind, error, trace)

    def _close(self, *reason: Any) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.__exit__(*(reason or (None, None, None)))

    def run(self, title: str, function: Callable[[_U], _T], units: Sequence[_U]) -> Results[_T]:
        """`function` of every unit; an exception fails its unit alone.

        A process that dies (out of memory, a crash in a library) takes the pool of local processes with it: what was
        under way is done again unit by unit, and the unit that breaks the pool again is the one that fails.
        """
        results: Results[_T] = Results({}, {})
        with tqdm(total=len(units), desc=title, unit="file", disable=not self._progress or not units) as bar:
            suspects = self._run_batches(function, list(_batches(units, self._workers)), self._in_flight, results, bar)
            while suspects:
                # One at a time, the batch that is lost is the culprit.
                lost = self._run_batches(function, [[unit] for batch in suspects for unit in batch], 1, results, bar)
                for (unit,) in lost[:1]:
                    results.failed[unit.key] = "the process at work on it died (out of memory, or a crash)"
                    bar.update()
                suspects = lost[1:]
        return results

    def _run_batches(
        self,
        function: Callable[[_U], _T],
        batches: Sequence[Sequence[_U]],
        in_flight: int,
        results: Results[_T],
        bar: tqdm,
    ) -> list[Sequence[_U]]:
        """Run the batches; returns those that were under way when the pool broke, and with one in flight the rest."""
        waiting = list(reversed(batches))
        running: dict[Future, Sequence[_U]] = {}
        lost: list[Sequence[_U]] = []
        is_broken = False
        while waiting or running:
            while waiting and len(running) < in_flight and not is_broken:
                batch = waiting.pop()
                running[self._submit(function, batch)] = batch
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                batch = running.pop(future)
                try:
                    _record(future.result(), results, bar)
                except BrokenExecutor:
                    is_broken = True
                    lost.append(batch)
                except Exception as error:  # the batch as a whole: a job that Slurm ended, a Dask worker lost thrice
                    _record([(unit.key, None, _sentence(error)) for unit in batch], results, bar)
            if is_broken and not running:
                self._close()
                is_broken = False
                if in_flight == 1:
                    return lost + waiting[::-1]
        return lost

    def _submit(self, function: Callable[[_U], _T], batch: Sequence[_U]) -> Future:
        if self._executor is None:
            self._executor = self._open_executor()
        try:
            return self._executor.submit(_run_batch, function, batch)
        except BrokenExecutor as error:
            broken: Future = Future()
            broken.set_exception(error)
            return broken


def _record(outcomes: Sequence[tuple[str, Any, str | None]], results: Results, bar: tqdm) -> None:
    for key, result, error in outcomes:
        if error is None:
            results.done[key] = result
        else:
            results.failed[key] = error
    bar.update(len(outcomes))


def _run_batch(function: Callable[[_U], _T], batch: Sequence[_U]) -> list[tuple[str, _T | None, str | None]]:
    """In the worker: key, result and error of every unit."""
    outcomes = []
    for unit in batch:
        try:
            outcomes.append((unit.key, function(unit), None))
        except Exception as error:
            outcomes.append((unit.key, None, _sentence(error)))
    return outcomes


def _sentence(error: Exception) -> str:
    if isinstance(error, UsageError):
        return str(error)
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def _batches(units: Sequence[_U], workers: int) -> Iterator[Sequence[_U]]:
    """Units in order, many small ones together, but so that every worker gets several batches."""
    size_limit = min(_BATCH_BYTES, sum(unit.size for unit in units) / (4 * workers))
    count_limit = min(_BATCH_UNITS, -(-len(units) // (4 * workers)))
    batch: list[_U] = []
    for unit in units:
        if batch and (len(batch) >= count_limit or sum(u.size for u in batch) + unit.size > size_limit):
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch
