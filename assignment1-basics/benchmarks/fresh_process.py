"""Run a benchmark's script again as a fresh process, and see what it cost.

A script calls `run_fresh(__file__, [...])`; in the fresh process it prints one JSON object as its last line of output
(`report`). CPU seconds are user + system, of the process and of all its children, interpreter start included. Peak
memory is that of the process itself.
"""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def run_fresh(script: str, arguments: list[str]) -> dict[str, Any]:
    """The JSON object that the script printed, and its `cpu` and `wall` seconds."""
    # Without this variable Python keeps compiled byte code, as it does for everybody by default.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(done.args)} failed:\n{done.stderr}")
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]) | {"cpu": cpu, "wall": wall}


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage's number, this one does not count the process that started us
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text()).group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def report(**values: Any) -> None:
    """Print the result of a fresh process, with its peak memory unless `values` has another."""
    print("\n" + json.dumps({"peak": peak_bytes()} | values))


def without_foreign_extensions() -> None:
    """Keep numba from loading what other packages hook into it.

    gigatoken brings `awkward`, which numba would import for 0.15 s and 30 MB; without that peer nobody has it.
    """
    import numba.core.entrypoints

    numba.core.entrypoints._already_initialized = True


def alternating(script: str, tools: list[str], arguments: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """For each tool the medians of its runs; the tools take turns. Values that are no numbers are the last run's."""
    runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    for _ in range(rounds):
        for tool in tools:
            runs[tool].append(run_fresh(script, ["--worker", tool, *arguments]))
            print(f"{tool}: {runs[tool][-1]['cpu']:.2f} CPU s, {runs[tool][-1]['wall']:.2f} s", file=sys.stderr)
    return {
        tool: {
            name: statistics.median(run[name] for run in results) if isinstance(value, int | float) else value
            for name, value in results[-1].items()
        }
        for tool, results in runs.items()
    }


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
