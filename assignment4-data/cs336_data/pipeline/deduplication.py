"""The last stage: documents that repeat others, or lines that do, go; what stays becomes the result's shards.

The order is URL duplicates, near-duplicates (MinHash), then exact lines. Lines come last because every copy of a line
that occurs twice goes: two copies of one page would take all of each other's text.

    sign    for every unit: URL hashes, MinHash band keys and shingles           (parallel; done once for a unit)
    match   over all units: which documents go                                   (one process)
    lines   for every unit: hashes of the lines of what is left                  (parallel)
    count   over all units: which lines occur more than once                     (one process)
    shards  for every unit: the result, without those documents and lines        (parallel)

What is complete is not done again; more input files, or other settings, redo all but `sign`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cs336_basics.command_line import UsageError
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.filtering import FilterSettings
from cs336_data.pipeline.inputs import Unit
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.markers import read_marker
from cs336_data.pipeline.shards import WriteShard
from cs336_data.pipeline.summary import Summary

METHODS = ("none",)


@dataclass(frozen=True)
class DedupSettings:
    """How documents are deduplicated.

    Raises:
        UsageError: a value is out of range.
    """

    method: str = "none"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"dedup method {self.method!r} is unknown; allowed are {', '.join(METHODS)}")

    @property
    def stages(self) -> list[str]:
        """The stages that remove documents, in order."""
        return []

    def as_json(self) -> dict[str, Any]:
        """The settings as an object of JSON."""
        return asdict(self)


class Deduplication:
    """The stage over all units.

    Args:
        engine: what the work runs on.
        layout: the run's folder.
        settings: how to deduplicate.
        filtering: the first stage's settings, on which its documents depend.
    """

    def __init__(self, engine: Engine, layout: Layout, settings: DedupSettings, filtering: FilterSettings) -> None:
        self._engine, self._layout, self._settings, self._filtering = engine, layout, settings, filtering

    def execute(self, units: Sequence[Unit]) -> list[Summary]:
        """Write the shards of these units, and no others; what they came to.

        Raises:
            UsageError: a unit's work failed (a full disk, a process that died), so that the result is not complete.
        """
        version = self._version(units)
        done = {unit.key: read_marker(self._layout.shard_marker(unit.key), version) for unit in units}
        missing = [unit for unit in units if done[unit.key] is None]
        if len(missing) == len(units):
            self._layout.remove_final()
        if missing:
            done |= self._run("writing shards", self._shard_writer(version), missing)
        self._layout.remove_final_except([unit.key for unit in units])
        return [done[unit.key] for unit in units]

    def _shard_writer(self, version: str) -> WriteShard:
        return WriteShard(self._layout, version, self._filtering.keep_rejected)

    def _run(self, title: str, function: Any, units: Sequence[Unit]) -> Mapping[str, Any]:
        results = self._engine.run(title, function, units)
        for key, reason in results.failed.items():
            raise UsageError(f"{title} failed for {key} ({reason}): run the same command again to go on")
        return results.done

    def _version(self, units: Sequence[Unit]) -> str:
        """A digest of all that the result depends on."""
        parts = [[[unit.key, unit.version] for unit in units], self._filtering.as_json(), self._settings.as_json()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
