"""The pages of an input file: web archives (WARC, WET) and JSON Lines of documents, gzip, zstd or plain."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cs336_data.extraction import decode_html, extract_text
from cs336_data.pipeline.compressed_json import DamagedFileError, is_json_lines, read_lines
from cs336_data.web_archive.records import ReadCounts, Record, read_records

_HTML_TYPES = ("text/html", "application/xhtml+xml", "")
_RECORD_TYPES = ("response", "resource", "conversion")
_HTTP_OK = 200


@dataclass(frozen=True)
class Page:
    """A page as it was read: text, or the bytes of HTML or plain text and their declared encoding."""

    url: str
    offset: int
    text: str | None = None
    body: bytes = b""
    charset: str | None = None
    is_html: bool = False

    def extract(self) -> str | None:
        """The page's text; None if its bytes are no text."""
        if self.text is not None:
            return self.text
        return extract_text(self.body, self.charset) if self.is_html else decode_html(self.body, self.charset)


@dataclass
class PageCounts:
    """What a file held besides the pages handed out: sound records that are no pages, and damage, by reason."""

    skipped: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)


def read_pages(path: str | os.PathLike, counts: PageCounts, reader: str = "fastwarc") -> Iterator[Page]:
    """The pages of a file, in order; what is damaged is stepped over and counted.

    Args:
        path: a web archive, or JSON Lines of objects with at least "text" ("url" is read where it is given, as
            Dolma and C4 write it).
        counts: where to count what is not handed out.
        reader: the reader of web archives, "fastwarc" or "warcio".
    """
    return _documents(path, counts) if is_json_lines(path) else _archived(path, counts, reader)


def _archived(path: str | os.PathLike, counts: PageCounts, reader: str) -> Iterator[Page]:
    read = ReadCounts()
    try:
        for record in read_records(path, reader, types=_RECORD_TYPES, counts=read):
            page, reason = _page_of(record)
            if page is None:
                counts.skipped[reason] += 1
            else:
                yield page
    finally:
        counts.bad.update(read.bad)
        if read.skipped:
            counts.skipped["other record types"] += read.skipped


def _page_of(record: Record) -> tuple[Page | None, str]:
    """The record as a page, or why it is none."""
    if record.http_status not in (None, _HTTP_OK):
        return None, f"HTTP status {record.http_status}"
    kind = record.media_type
    if record.type == "conversion" or kind == "text/plain":
        return Page(record.url, record.offset, body=record.payload, charset=record.charset), ""
    if kind in _HTML_TYPES:
        return Page(record.url, record.offset, body=record.payload, charset=record.charset, is_html=True), ""
    return None, f"content type {kind}"


def _documents(path: str | os.PathLike, counts: PageCounts) -> Iterator[Page]:
    try:
        for offset, line in read_lines(path):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                counts.bad["a line that is not JSON"] += 1
                continue
            if isinstance(value, dict) and isinstance(value.get("text"), str):
                yield Page(_url_of(value), offset, text=value["text"])
            else:
                counts.bad['an object without "text"'] += 1
    except DamagedFileError as error:
        counts.bad[str(error)] += 1


def _url_of(value: dict[str, Any]) -> str:
    metadata = value.get("metadata")
    url = value.get("url") or (metadata.get("url") if isinstance(metadata, dict) else None)
    return url if isinstance(url, str) else ""
