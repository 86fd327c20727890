"""Tables and plots of measured collectives."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from cs336_basics.curves import figure_png, tidy
from cs336_systems.communication.collectives import collective
from cs336_systems.communication.measure import Case
from cs336_systems.result_table import ResultTable

HEADER = ["collective", "processes", "size (MB)", "median time (ms)", "algorithm GB/s", "bus GB/s", "note"]


@dataclass(frozen=True)
class Measurement:
    """A case and the seconds of its repeats; none if it was not run, and `note` then says why."""

    case: Case
    seconds: Sequence[float]
    note: str = ""

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def algorithm_bandwidth(self) -> float:
        """Bytes of the case per second."""
        return self.case.size / self.median

    @property
    def bus_bandwidth(self) -> float:
        """Bytes per second through each rank's link, if the algorithm is the best possible."""
        return self.algorithm_bandwidth * collective(self.case.collective).bus_factor(self.case.processes)


def make_table(measurements: Sequence[Measurement]) -> ResultTable:
    """One row for each case."""
    table = ResultTable(HEADER)
    for one in measurements:
        case = one.case
        numbers = [None, None, None]
        if one.seconds:
            numbers = [1e3 * one.median, one.algorithm_bandwidth / 1e9, one.bus_bandwidth / 1e9]
        table.rows.append([case.collective, case.processes, case.size / 1e6, *numbers, one.note])
    return table


def plot(measurements: Sequence[Measurement], title: str) -> bytes:
    """Time and bus bandwidth against size, a column of panels for each collective, a line for each number of processes;
    as a PNG."""
    done = [one for one in measurements if one.seconds]
    names = list(dict.fromkeys(one.case.collective for one in done))
    figure = Figure(figsize=(max(5.0, 4.0 * len(names)), 7), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(2, max(1, len(names)), sharex=True, sharey="row", squeeze=False)
    for name, (above, below) in zip(names, panels.T, strict=False):
        above.set_title(name)
        for processes in sorted({one.case.processes for one in done}):
            line = sorted(
                (one for one in done if (one.case.collective, one.case.processes) == (name, processes)),
                key=lambda one: one.case.size,
            )
            sizes = [one.case.size / 1e6 for one in line]
            label = f"{processes} processes"
            above.plot(sizes, [1e3 * one.median for one in line], marker=".", label=label)
            below.plot(sizes, [one.bus_bandwidth / 1e9 for one in line], marker=".", label=label)
        above.set_xscale("log")
        above.set_yscale("log")
        above.legend(frameon=False)
        tidy(above, "", "median time (ms)")
        tidy(below, "size (MB)", "bus bandwidth (GB/s)")
    return figure_png(figure)
