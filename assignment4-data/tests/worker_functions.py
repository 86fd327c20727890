"""What the tests of executors and of the engine run in workers, in a module that a fresh process imports quickly."""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

# Longer than any test waits: a task that nobody stops makes the test fail, not pass late.
FOREVER_SECONDS = 600


class Item(NamedTuple):
    key: str
    size: int = 1
    kills: bool = False


def double(item: Item) -> str:
    """The key twice; some items raise, some kill the process that works on them."""
    if item.kills:
        kill_itself()
    if item.key == "bad":
        raise ValueError("a bad item\nwith details")
    return item.key * 2


def divide(dividend: int, divisor: int) -> float:
    return dividend / divisor


def process_id(_: int = 0) -> int:
    return os.getpid()


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def announce_and_wait(folder: str) -> None:
    Path(folder, f"{os.getpid()}.started").touch()
    time.sleep(FOREVER_SECONDS)
