"""Work for the engine's tests, in a module that a fresh process imports quickly."""

import os
import signal
from typing import NamedTuple


class Item(NamedTuple):
    key: str
    size: int = 1
    kills: bool = False


def double(item: Item) -> str:
    """The key twice; some items raise, some kill the process that works on them."""
    if item.kills:
        os.kill(os.getpid(), signal.SIGKILL)
    if item.key == "bad":
        raise ValueError("a bad item\nwith details")
    return item.key * 2
