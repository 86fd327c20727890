"""Completion markers: a unit's marker is written after its data, and says of which input and to what effect."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_data.pipeline.summary import Summary


def write_marker(path: Path, version: Any, summary: Summary) -> None:
    """Mark a unit's data as complete.

    Args:
        path: the marker's file.
        version: whatever changes when the unit must be done again.
        summary: what its work came to.
    """
    write_json(path, {"version": version, "summary": summary.as_json()})


def read_marker(path: Path, version: Any) -> Summary | None:
    """The summary of a unit that is complete for this version; None if it is not."""
    marker = read_json(path)
    return Summary.from_json(marker["summary"]) if marker and marker["version"] == version else None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, which appears whole or not at all."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run's folder alone; the system releases it if the process is killed.

    Raises:
        UsageError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another run is at work in {path.parent.parent}: wait for it or give another --out"
            ) from None
        yield
