"""An executor's `map` that takes the next item only when there is room for it, so that a stream stays a stream."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], under_way: int
) -> Iterator[Result]:
    """Yield `function(item)` for every item, in order, with at most `under_way` items submitted at a time.

    `Executor.map` would take all items first: for the blocks of a file that is the whole file in memory.
    """
    futures: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(futures) >= under_way:
                yield futures.popleft().result()
            futures.append(executor.submit(function, item))
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
