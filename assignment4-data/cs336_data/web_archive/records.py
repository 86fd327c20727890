"""Records of web archives, decoded, from files whole or damaged.

    counts = ReadCounts()
    for record in read_records("CC-MAIN-....warc.gz", types=("response",), counts=counts):
        ...

The format is WARC 1.0 and 1.1 (ISO 28500; https://iipc.github.io/warc-specifications/). WET files (extracted text)
and WAT files (metadata as JSON) are WARC files of `conversion` and `metadata` records.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from email.message import Message

from cs336_basics.command_line import UsageError
from cs336_data.web_archive import fastwarc_reader, warcio_reader
from cs336_data.web_archive.archive_file import SEVERAL, ArchiveFile
from cs336_data.web_archive.http_message import decode_body, parse_http
from cs336_data.web_archive.raw_record import RawRecord, UnreadableError

BAD_HTTP = "an HTTP record without HTTP header"
READERS: dict[str, Callable[[ArchiveFile, int], Iterator[RawRecord]]] = {
    "fastwarc": fastwarc_reader.raw_records,
    "warcio": warcio_reader.raw_records,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an archive.

    Attributes:
        type: its WARC-Type: response, request, revisit, warcinfo, metadata, conversion, resource, continuation …
        url: its WARC-Target-URI; empty where there is none.
        date: its WARC-Date, as written (ISO 8601).
        content_type: what the payload is: the HTTP header's Content-Type for HTTP records, else the WARC header's.
        headers: the WARC header's fields, names in lower case.
        payload: for HTTP records the body without transfer and content encoding, else the block.
        offset: where it begins in the file, in bytes (of the decompressed bytes, if the file is compressed as a whole).
        http_status: the status of an HTTP answer.
        http_headers: the HTTP header's fields, names in lower case.
    """

    type: str
    url: str
    date: str
    content_type: str
    headers: dict[str, str]
    payload: bytes
    offset: int
    http_status: int | None = None
    http_headers: dict[str, str] = field(default_factory=dict)

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case: "text/html"."""
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """The encoding that the content type declares."""
        return _charset(self.content_type)


@dataclass
class ReadCounts:
    """What became of a file's records.

    Attributes:
        good: records handed out.
        skipped: sound records of types that were not asked for.
        bad: damaged places, by reason.
    """

    good: int = 0
    skipped: int = 0
    bad: Counter[str] = field(default_factory=Counter)


@functools.lru_cache(maxsize=1024)
def _charset(content_type: str) -> str | None:
    message = Message()
    message["content-type"] = content_type
    charset = message.get_param("charset")
    return charset.strip() or None if isinstance(charset, str) else None


def read_records(
    path: str | os.PathLike,
    reader: str = "fastwarc",
    *,
    types: Collection[str] | None = None,
    counts: ReadCounts | None = None,
) -> Iterator[Record]:
    """The sound records of a WARC, WET or WAT file, in order; damage is stepped over and counted.

    Args:
        path: the file; plain, gzip (by record or as a whole) or zstd.
        reader: "fastwarc", or "warcio", which is slower and more lenient.
        types: the record types wanted; None for all.
        counts: where to count what was read.

    Raises:
        UsageError: there is no such file or no such reader.
    """
    if reader not in READERS:
        raise UsageError(f"reader {reader!r} is unknown; allowed are {' and '.join(READERS)}")
    counts = ReadCounts() if counts is None else counts
    with ArchiveFile(path) as archive:
        for raw in _sound_records(archive, READERS[reader], counts):
            if types is not None and raw.headers.get("warc-type", "") not in types:
                counts.skipped += 1
            elif (record := _decode(raw)) is None:
                counts.bad[BAD_HTTP] += 1
            else:
                counts.good += 1
                yield record


def _sound_records(
    archive: ArchiveFile, raw_records: Callable[[ArchiveFile, int], Iterator[RawRecord]], counts: ReadCounts
) -> Iterator[RawRecord]:
    """The records whose length is right.

    A record with a wrong Content-Length shows only in that nothing readable follows it: each record is held back until
    the next one has been read.
    """
    start: int | None = 0
    while start is not None:
        held, damage, gave_up = None, None, False
        try:
            for raw in raw_records(archive, start):
                if held is not None:
                    yield held
                held = raw
                if not raw.is_whole:
                    damage, held = raw.offset, None
                    break
        except UnreadableError:
            gave_up = True
        if damage is None and held is None:
            damage = start if gave_up or not archive.is_empty() else None
        elif damage is None:
            end = archive.record_end(held.offset)
            if end is None:
                damage, held = held.offset, None
            elif gave_up or archive.has_data_after(end):  # some readers take damage for the end of the file
                damage = end
        if held is not None:
            yield held
        if damage is None:
            return
        reason = archive.why_unreadable(damage)
        counts.bad[reason] += 1
        start = archive.next_start(damage if reason == SEVERAL and damage > start else damage + 1)


def _decode(raw: RawRecord) -> Record | None:
    """The record with its HTTP message taken apart; None if there is none where one must be."""
    headers = raw.headers
    record_type, content_type = headers.get("warc-type", ""), headers.get("content-type", "")
    payload, status, http_headers = raw.block, None, {}
    if content_type.lower().startswith("application/http") and record_type in ("response", "request", "revisit"):
        message = parse_http(raw.block, is_request=record_type == "request")
        if message is None and (raw.block or record_type == "response"):
            return None
        if message is not None:
            status, http_headers, payload = message.status, message.headers, decode_body(message)
            content_type = http_headers.get("content-type", "")
    url = headers.get("warc-target-uri", "").strip("<>")  # WARC 1.0 writes it in angle brackets
    return Record(
        record_type, url, headers.get("warc-date", ""), content_type, headers, payload, raw.offset, status, http_headers
    )
