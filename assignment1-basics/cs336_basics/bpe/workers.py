"""How many workers, worker processes that start and die with their parent, and a `map` that keeps a stream a stream."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def process_pool(num_workers: int, set_up: Callable[..., object] | None = None, *arguments: Any) -> Iterator[Executor]:
    """A pool of processes, for a `with` statement.

    They are spawned, which works alike on Linux and macOS and is safe where the parent has threads; a program that uses
    them needs the usual `if __name__ == "__main__":`.

    Args:
        num_workers: how many processes.
        set_up: called in each with `arguments`, once; None: nothing is.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, context, _set_up_worker, (set_up, arguments))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _set_up_worker(set_up: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent's reaction is enough
    threading.Thread(target=_exit_with_the_parent, daemon=True).start()
    if set_up is not None:
        set_up(*arguments)


def _exit_with_the_parent() -> None:
    """A pool's workers wait for work for ever when their parent was killed and could not tell them to stop."""
    multiprocessing.parent_process().join()
    os._exit(1)


def ordered_map(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], under_way: int
) -> Iterator[Result]:
    """Yield `function(item)` for every item, in order, with at most `under_way` items submitted at a time.

    `Executor.map` would take all items first: for the blocks of a file that is the whole file in memory.
    """
    futures: deque[Future[Result]] = deque()
    for item in items:
        if len(futures) >= under_way:
            yield futures.popleft().result()
        futures.append(executor.submit(function, item))
    while futures:
        yield futures.popleft().result()
