"""The first stage's work on one unit: read, extract, filter, write. It runs in a worker process."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import xxhash

from cs336_data.document import Document
from cs336_data.pipeline.chain import FilterSpec, build_chain
from cs336_data.pipeline.compressed_json import ObjectWriter, write_objects
from cs336_data.pipeline.inputs import Unit
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.markers import write_marker
from cs336_data.pipeline.pages import PageCounts, read_pages
from cs336_data.pipeline.summary import Example, Summary

EXTRACT = "extract"
"""The name under which pages without text are counted as removed."""
_T = TypeVar("_T")


class UnreadableInputError(ValueError):
    """A file in which nothing could be read."""


@dataclass(frozen=True)
class FilterSettings:
    """What decides over the first stage's results besides the input itself."""

    filters: tuple[FilterSpec, ...]
    reader: str = "fastwarc"
    keep_rejected: bool = False

    def as_json(self) -> dict[str, Any]:
        """The settings as an object of JSON."""
        return {
            "filters": {spec.name: dict(spec.options) for spec in self.filters},
            "reader": self.reader,
            "keep_rejected": self.keep_rejected,
        }


@dataclass(frozen=True)
class FilterUnit:
    """The work as a callable that pickles."""

    settings: FilterSettings
    layout: Layout

    def __call__(self, unit: Unit) -> Summary:
        """Write the unit's kept (and rejected) documents, then its marker with the summary."""
        kept, rejected = self.layout.filtered(unit.key), self.layout.filtered_rejected(unit.key)
        with ExitStack() as files:
            kept_file = files.enter_context(write_objects(kept))
            rejected_file = files.enter_context(write_objects(rejected)) if self.settings.keep_rejected else None
            summary = self._filter(unit, kept_file, rejected_file)
        write_marker(self.layout.filter_marker(unit.key), unit.version, summary)
        return summary

    def _filter(self, unit: Unit, kept_file: ObjectWriter, rejected_file: ObjectWriter | None) -> Summary:
        chain = build_chain(self.settings.filters)
        summary, counts = Summary(), PageCounts()
        for page in _timed(read_pages(unit.path, counts, self.settings.reader), "read", summary.seconds):
            summary.pages += 1
            start = time.thread_time()
            text = page.extract()
            summary.seconds[EXTRACT] += time.thread_time() - start
            document = Document(text or "", page.url, unit.path, page.offset)
            if not document.text.strip():
                reason = "no text in any encoding" if text is None else "a page without text"
                _reject(document, EXTRACT, reason, (), summary, rejected_file)
                continue
            summary.characters_read += len(document.text)
            verdict = chain(document, summary.seconds)
            _count(verdict.document, verdict.edited_by, summary)
            start = time.thread_time()
            if verdict.rejected_by is None:
                _keep(verdict.document, summary, kept_file)
            else:
                decision = verdict.decision
                _reject(verdict.document, verdict.rejected_by, decision.reason, decision.spans, summary, rejected_file)
            summary.seconds["write"] += time.thread_time() - start
        summary.bad, summary.skipped = counts.bad, counts.skipped
        if counts.bad and not summary.pages and not counts.skipped:
            raise UnreadableInputError("nothing in it can be read: " + "; ".join(counts.bad))
        return summary


def document_record(document: Document) -> dict[str, Any]:
    """The document as it is written: id, url, text, source, offset, language, scores, masked."""
    scores = dict(document.metadata)
    language, masked = scores.pop("language", None), scores.pop("masked", {})
    return {
        "id": f"{_order(document):016x}",
        "url": document.url,
        "text": document.text,
        "source": document.source,
        "offset": document.offset,
        "language": language,
        "scores": scores,
        "masked": masked,
    }


def _order(document: Document) -> int:
    """A number that a document's source and offset alone decide, and that looks random."""
    return xxhash.xxh3_64_intdigest(f"{document.source}\n{document.offset}".encode("utf-8", "surrogateescape"))


def _keep(document: Document, summary: Summary, file: ObjectWriter) -> None:
    summary.kept += 1
    summary.characters_kept += len(document.text)
    file.write(document_record(document))
    summary.add_example(Example(_order(document), "", document.url, document.text))


def _reject(
    document: Document, name: str, reason: str, spans: tuple, summary: Summary, file: ObjectWriter | None
) -> None:
    summary.removed[name] += 1
    summary.add_example(Example(_order(document), name, document.url, document.text, reason))
    if file is not None:
        details = {"filter": name, "reason": reason, "spans": [list(span) for span in spans]}
        file.write(document_record(document) | details)


def _count(document: Document, edited_by: tuple[str, ...], summary: Summary) -> None:
    summary.edited.update(edited_by)
    if language := document.metadata.get("language"):
        summary.languages[language] += 1
    summary.masked.update(document.metadata.get("masked", {}))


def _timed(items: Iterator[_T], stage: str, seconds: Counter[str]) -> Iterator[_T]:
    """The items; the time that making them takes is added to the stage's."""
    while True:
        start = time.thread_time()
        item = next(items, None)
        seconds[stage] += time.thread_time() - start
        if item is None:
            return
        yield item
