"""How the quickstart keeps its time and tells its story."""

import time

import psutil
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule


class Clock:
    """Wall-clock time since the process started: the budget covers Python's imports too."""

    def __init__(self, minutes: float) -> None:
        self.budget_s = 60 * minutes
        self.parts: dict[str, float] = {}
        self._started = self._last = psutil.Process().create_time()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the process started."""
        return time.time() - self._started

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget_s - self.elapsed_s

    def lap(self, part: str) -> float:
        """Book the seconds since the last lap under `part`, and return them."""
        now = time.time()
        seconds, self._last = now - self._last, now
        self.parts[part] = self.parts.get(part, 0.0) + seconds
        return seconds


class Teller:
    """Prints chapters and sentences."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)

    def chapter(self, title: str, explanation: str) -> None:
        """A heading, and what is going to happen under it."""
        self.console.print()
        self.console.print(Rule(f"[bold]{title}[/]", align="left"))
        self.console.print(explanation, style="dim")

    def say(self, sentence: str, style: str = "") -> None:
        """A sentence; brackets in it mean nothing."""
        self.console.print(escape(sentence), style=style)

    def stream(self, text: str) -> None:
        """A piece of text as it is, without a line break after it."""
        self.console.file.write(text)
        self.console.file.flush()
