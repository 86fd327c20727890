"""Timing on a device that works behind the program's back."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of repeated measurements, in order."""

    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean, in seconds."""
        return statistics.fmean(self.seconds)

    @property
    def std(self) -> float:
        """Sample standard deviation, in seconds; 0 for a single measurement."""
        return statistics.stdev(self.seconds) if len(self.seconds) > 1 else 0.0

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return statistics.median(self.seconds)


def time_calls(
    function: Callable[[], object],
    device: torch.device,
    *,
    warmup: int,
    repeats: int,
    max_seconds: float = float("inf"),
    prepare: Callable[[], object] | None = None,
) -> Timing:
    """Time calls of a function.

    Args:
        function: what is timed.
        device: waited for before each clock reading.
        warmup: calls before those that are timed.
        repeats: the most timed calls, at least 1.
        max_seconds: no further call is timed once the timed ones have taken this long together.
        prepare: called before each call, outside the time.
    """
    seconds: list[float] = []
    for call in range(warmup + repeats):
        if prepare is not None:
            prepare()
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        if call >= warmup:
            seconds.append(time.perf_counter() - start)
            if sum(seconds) >= max_seconds:
                break
    return Timing(tuple(seconds))
