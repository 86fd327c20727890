"""Ending long work at a good moment: the first Ctrl-C or SIGTERM asks, the second one insists."""

import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """While this context is open, SIGINT and SIGTERM only set `requested`; a second signal acts as it always did.

    Outside the main thread, where Python allows no signal handlers, it does nothing and `requested` stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
