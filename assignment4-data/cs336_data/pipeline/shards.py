"""The last stage's work on one unit: its shard of the result, without what deduplication removes."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from cs336_data.dedup.line_hashes import remove_lines
from cs336_data.dedup.repeated_lines import RepeatedLines
from cs336_data.pipeline.compressed_json import ObjectWriter, read_objects, write_objects
from cs336_data.pipeline.dedup_settings import LINES
from cs336_data.pipeline.inputs import Unit
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.markers import read_json, write_marker
from cs336_data.pipeline.summary import Example, Summary

WRITE = "write shards"
_MANY_NEWLINES = re.compile(r"\n{3,}")


class Removal(NamedTuple):
    """Why a document does not stay: the stage that removed it, and the reason."""

    stage: str
    reason: str
    spans: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class WriteShard:
    """The work as a callable that pickles.

    Attributes:
        layout: the run's folder.
        version: of the run's inputs and settings, for the marker.
        keep_rejected: whether to write what is removed, too.
        removes_documents: whether the unit has a list of documents to remove (`Layout.removals`).
        repeated_lines: the file of hashes of lines to remove; None if lines stay.
        min_words: a document that loses lines is removed if fewer words are left.
    """

    layout: Layout
    version: str
    keep_rejected: bool
    removes_documents: bool = False
    repeated_lines: Path | None = None
    min_words: int = 0

    def __call__(self, unit: Unit) -> Summary:
        """Write the unit's shard (and rejected documents), then its marker with the summary."""
        start = time.thread_time()
        summary = Summary()
        with ExitStack() as files:
            kept_file = files.enter_context(write_objects(self.layout.kept(unit.key)))
            rejected_file = None
            if self.keep_rejected:
                rejected_file = files.enter_context(write_objects(self.layout.rejected(unit.key)))
                for record in read_objects(self.layout.filtered_rejected(unit.key)):
                    rejected_file.write(record)
            for record, removal in self._decided(unit, summary):
                _write(record, removal, summary, kept_file, rejected_file)
        summary.seconds[WRITE] = time.thread_time() - start - summary.seconds[LINES]
        write_marker(self.layout.shard_marker(unit.key), self.version, summary)
        return summary

    def _decided(self, unit: Unit, summary: Summary) -> Iterator[tuple[dict[str, Any], Removal | None]]:
        """The unit's documents as they are in the end, each with why it goes, if it does."""
        removals = documents_to_remove(self.layout, unit.key) if self.removes_documents else {}
        for index, record in enumerate(read_objects(self.layout.filtered(unit.key))):
            removal = removals.get(index)
            if removal is None and self.repeated_lines is not None:
                start = time.thread_time()
                record, removal = self._without_lines(record, summary)
                summary.seconds[LINES] += time.thread_time() - start
            yield record, removal

    def _without_lines(self, record: dict[str, Any], summary: Summary) -> tuple[dict[str, Any], Removal | None]:
        text, removed = remove_lines(record["text"], _load(self.repeated_lines, self.version))
        if not removed:
            return record, None
        text = _MANY_NEWLINES.sub("\n\n", text).strip("\n")
        words = len(text.split())
        if words < max(self.min_words, 1):
            reason = (
                f"{words} words are left without the lines that occur elsewhere, at least {self.min_words} are needed"
            )
            spans = tuple((start, end, "repeated line") for start, end in removed)
            return record, Removal(LINES, reason, spans)
        summary.edited[LINES] += 1
        return record | {"text": text}, None


def documents_to_remove(layout: Layout, key: str) -> dict[int, Removal]:
    """The unit's documents that go, by their place in its filtered file."""
    return {int(index): Removal(*removal) for index, removal in (read_json(layout.removals(key)) or {}).items()}


@lru_cache(maxsize=1)
def _load(path: Path, version: str) -> RepeatedLines:
    """The set, once for a process; `version` tells a file from its successors."""
    return RepeatedLines.load(path)


def _write(
    record: dict[str, Any],
    removal: Removal | None,
    summary: Summary,
    kept_file: ObjectWriter,
    rejected_file: ObjectWriter | None,
) -> None:
    kind = "" if removal is None else removal.stage
    reason = "" if removal is None else removal.reason
    summary.add_example(Example(int(record["id"], 16), kind, record["url"], record["text"], reason))
    if removal is None:
        summary.kept += 1
        summary.characters_kept += len(record["text"])
        kept_file.write(record)
        return
    summary.removed[removal.stage] += 1
    if rejected_file is not None:
        details = {"filter": removal.stage, "reason": removal.reason, "spans": [list(span) for span in removal.spans]}
        rejected_file.write(record | details)
