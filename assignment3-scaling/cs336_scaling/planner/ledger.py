"""The planner's memory: every answer is on disk before it is used, so a killed planner goes on without paying twice."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_scaling.planner.laboratory import Budget, Laboratory, Outcome
from cs336_scaling.schemas.canonical import canonical_hash


class Ledger:
    """A laboratory that asks another one, and appends each answer as a line of JSON.

    The first line says whose answers these are. A last line that a kill cut short is dropped.

    Args:
        laboratory: what is asked when an answer is not there.
        path: the file.
        owner: what must not change between two runs of the planner (edition, server, seed …).

    Raises:
        UsageError: the file belongs to another owner, or is no ledger.
    """

    def __init__(self, laboratory: Laboratory[Any], path: str | os.PathLike, owner: dict[str, Any]) -> None:
        self._laboratory, self._path = laboratory, Path(path)
        self._answers: dict[str, Outcome] = {}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if not whole:
            self._available = laboratory.budget().remaining
            with atomic_write(self._path, "w") as file:
                file.write(json.dumps({"owner": owner, "available": self._available}) + "\n")
            return
        try:
            first, *rest = [json.loads(line) for line in whole.splitlines()]
            found, self._available = first["owner"], float(first["available"])
            self._answers = {line["hash"]: Outcome(**line["outcome"]) for line in rest}
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{self._path} is no ledger of a plan; remove it or choose another folder") from None
        if found != owner:
            raise UsageError(f"{self._path} belongs to another plan ({found}, not {owner}); choose another folder")
        os.truncate(self._path, len(whole.encode("utf-8")))

    def __len__(self) -> int:
        return len(self._answers)

    def budget(self) -> Budget:
        """What the laboratory had left when this ledger was begun, less what the answers so far have cost.

        The planner must decide the same when it goes through its answers again, so what is spent is counted here.
        """
        return Budget(self._available, sum(outcome.cost for outcome in self._answers.values()))

    def submit(self, config: BaseModel) -> Outcome:
        """The answer on disk, or the laboratory's."""
        name = canonical_hash(config)
        if name not in self._answers:
            outcome = self._laboratory.submit(config)
            line = {"hash": name, "config": config.model_dump(mode="json"), "outcome": asdict(outcome)}
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._answers[name] = outcome
        return self._answers[name]
