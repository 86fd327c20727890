"""An archive as a file: how it is compressed, where its records begin and end, and where to go on after damage.

Common Crawl compresses every record by itself (one gzip member each; WARC 1.1, Annex D), so that what comes after a
damaged record can still be read. A file that was compressed as a whole is read as a stream of plain bytes, and its
offsets are those of the decompressed bytes.
"""

import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from cs336_basics.command_line import UsageError
from cs336_data.web_archive.decompressed_stream import (
    CHUNK_BYTES,
    GZIP_MAGIC,
    GZIP_WINDOW,
    ZSTD_MAGIC,
    DecompressedStream,
)

CUT_OFF = "cut off: the data ends before the record does"
DAMAGED = "damaged compressed data"
NO_RECORD = "bytes that are no WARC record"
SEVERAL = "more than one record in a gzip member"
WRONG_LENGTH = "wrong or missing Content-Length"

_BLANK = b"\r\n"
_MAX_HEADER_BYTES = 1 << 16
_VERSION_LINE = re.compile(rb"(?:\A|(?<=\n))WARC/\d\.\d+\r?\n")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class ArchiveFile:
    """A WARC, WET or WAT file, opened for reading.

    Attributes:
        path: where it lies.
        by_record: whether it is a row of gzip members with one record each; if not, it is read as plain bytes.
        stream: its bytes (decompressed, if it was compressed as a whole).

    Raises:
        UsageError: there is no such file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        try:
            file = open(self.path, "rb")  # noqa: SIM115 - closed in __exit__
        except (FileNotFoundError, IsADirectoryError):
            raise UsageError(f"{path} is not a file; the path of a WARC, WET or WAT file is needed") from None
        self.stream: BinaryIO | DecompressedStream = file
        magic = file.read(len(ZSTD_MAGIC))
        gzipped = magic.startswith(GZIP_MAGIC)
        self.by_record = gzipped and not self._first_member_holds_several()
        if magic == ZSTD_MAGIC or (gzipped and not self.by_record):
            self.stream = DecompressedStream(file, "gzip" if gzipped else "zstd")

    def __enter__(self) -> "ArchiveFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stream.close()

    def stream_from(self, offset: int) -> "BinaryIO | DecompressedStream":
        """The one stream, moved to `offset`."""
        self.stream.seek(offset)
        return self.stream

    def record_end(self, offset: int) -> int | None:
        """Where the record at `offset` and the blank lines after it end; None if its Content-Length leads elsewhere.

        If a gzip member holds several records after all, readers give its end as the place of all but the first: there
        is nothing to check then.
        """
        if self.by_record:
            if not self.stream_from(offset).read(len(GZIP_MAGIC)).startswith(GZIP_MAGIC):
                return offset
            plain, _, end = self._member(offset)
            length = _record_length(plain)
            rest = b"" if length is None else plain[length:].lstrip(_BLANK)
            fits = length is not None and len(plain) >= length and (not rest or _VERSION_LINE.match(rest))
            return end if fits else None
        length = _record_length(self.stream_from(offset).read(_MAX_HEADER_BYTES))
        if length is None:
            return None
        after = self.stream_from(offset + length - 1).read(1 + 2 * len(_BLANK))
        num_blank = len(after[1:]) - len(after[1:].lstrip(_BLANK))
        return offset + length + num_blank if len(after) == 1 or num_blank else None

    def is_empty(self) -> bool:
        """Whether there are no bytes at all, or nothing was compressed."""
        if self.by_record:
            return self._member(0)[:2] == (b"", "whole")
        return not self.stream_from(0).read(1) and self._stream_state() == "whole"

    def has_data_after(self, offset: int) -> bool:
        """Whether anything but blank bytes follows."""
        stream = self.stream_from(offset)
        return any(data.strip(b"\r\n\0 ") for data in iter(lambda: stream.read(CHUNK_BYTES), b""))

    def why_unreadable(self, offset: int) -> str:
        """What is wrong at `offset`, where no sound record could be read: one of this module's reasons."""
        if self.by_record:
            if self.record_end(offset) is not None:
                return SEVERAL  # nothing is wrong here, so the reader has failed before
            plain, state, _ = self._member(offset)
            if state != "whole":
                return state
            return WRONG_LENGTH if _VERSION_LINE.match(plain) else NO_RECORD
        start = self.stream_from(offset).read(_MAX_HEADER_BYTES)
        if start and not _VERSION_LINE.match(start):
            return NO_RECORD
        length = _record_length(start)
        if length is None and _HEADER_END.search(start):
            return WRONG_LENGTH
        if self.next_start(offset + 1) is not None or (length and self.stream_from(offset + length - 1).read(1)):
            return WRONG_LENGTH
        return DAMAGED if self._stream_state() == DAMAGED else CUT_OFF

    def next_start(self, offset: int) -> int | None:
        """Where the first record at or after `offset` begins; None if there is none."""
        marker = re.compile(re.escape(GZIP_MAGIC)) if self.by_record else _VERSION_LINE
        place = max(offset - 1, 0)  # a version line is known by the end of the line before it
        window = b""
        while data := self.stream_from(place + len(window)).read(CHUNK_BYTES):
            window += data
            for match in marker.finditer(window):
                found = place + match.start()
                if found >= offset and (not self.by_record or self._member_begins_record(found)):
                    return found
            overlap = min(len(window), 32)
            place += len(window) - overlap
            window = window[-overlap:]
            offset = max(offset, place + 1)
        return None

    def _stream_state(self) -> str:
        """As `_member` names them, for a file compressed as a whole that has been read to its end."""
        if not isinstance(self.stream, DecompressedStream):
            return "whole"
        return DAMAGED if self.stream.damaged else CUT_OFF if self.stream.cut_off else "whole"

    def _member(self, offset: int, limit: int | None = None) -> tuple[bytes, str, int]:
        """The gzip member at `offset`: its plain bytes (no more than about `limit`), its state, and where it ends.

        The state is "whole", `CUT_OFF` or `DAMAGED`; what could be decompressed is there in any case.
        """
        stream, decompressor, plain, consumed = self.stream_from(offset), zlib.decompressobj(GZIP_WINDOW), [], 0
        length = 0
        try:
            while not decompressor.eof and (limit is None or length < limit):
                if not (data := stream.read(CHUNK_BYTES)):
                    return b"".join(plain), CUT_OFF, offset + consumed
                consumed += len(data)
                plain.append(decompressor.decompress(data))
                length += len(plain[-1])
        except zlib.error:
            return b"".join(plain), DAMAGED, offset + consumed
        return b"".join(plain), "whole", offset + consumed - len(decompressor.unused_data)

    def _member_begins_record(self, offset: int) -> bool:
        return bool(_VERSION_LINE.match(self._member(offset, limit=1)[0]))

    def _first_member_holds_several(self) -> bool:
        plain = self._member(0, limit=_MAX_HEADER_BYTES)[0]
        length = _record_length(plain)
        if length is not None and len(plain) < length + 64:
            plain = self._member(0, limit=length + 64)[0]
        return length is not None and bool(_VERSION_LINE.match(plain[length:].lstrip(_BLANK)))


def _record_length(head: bytes) -> int | None:
    """Bytes of header and block of the record that `head` begins, by its Content-Length."""
    end = _HEADER_END.search(head)
    length = _CONTENT_LENGTH.search(head, 0, end.start() + 1) if end else None
    return end.end() + int(length[1]) if end and length else None
