"""Results of a long series of measurements, one JSON object per line, so that an interrupted series can go on."""

import json
from pathlib import Path
from typing import Any

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.run_log import read_metrics


class ResultLog:
    """A file with one result per case; each is on disk before the next case begins.

    A case is a dictionary of plain values that says what was measured.

    Args:
        path: the file, made if it is missing.
        resume: keep the results that are there already; otherwise the file starts anew.

    Raises:
        UsageError: the file to go on with is not one of these.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        if resume and path.exists():
            try:
                self.entries = read_metrics(path)
            except json.JSONDecodeError as error:
                raise UsageError(f"{path} cannot be resumed: {error}") from None
        with atomic_write(path, "w") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in self.entries)

    def find(self, case: dict[str, Any]) -> dict[str, Any] | None:
        """The result of a case, or None if it has not been measured."""
        return next((entry["result"] for entry in self.entries if entry["case"] == case), None)

    def add(self, case: dict[str, Any], result: dict[str, Any]) -> None:
        """Store the result of a case."""
        self.entries.append({"case": case, "result": result})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.entries[-1]) + "\n")
