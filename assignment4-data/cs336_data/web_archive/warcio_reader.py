"""The slower, more lenient reader: warcio, in plain Python.

It also reads records whose lines end in a line feed alone, which FastWARC does not.
"""

import zlib
from collections.abc import Iterator

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from cs336_data.web_archive.archive_file import ArchiveFile
from cs336_data.web_archive.raw_record import RawRecord, UnreadableError


class _QuietIterator(ArchiveIterator):
    """warcio's iterator without its warnings on standard error; it still counts what it would warn of."""

    INC_RECORD = ""


def raw_records(archive: ArchiveFile, start: int) -> Iterator[RawRecord]:
    """The records from `start`, up to the end or to the first that warcio cannot read.

    Raises:
        UnreadableError: warcio gives up, or has met something else than a blank line after a record.
    """
    records = _QuietIterator(archive.stream_from(start), no_record_parse=True)
    last = start - 1
    try:
        for record in records:
            if records.err_count:
                raise UnreadableError("a record is not followed by a blank line")
            headers = {name.lower(): value for name, value in record.rec_headers.headers}
            block = record.raw_stream.read()
            is_whole = headers.get("content-length") == str(len(block))
            if (offset := records.get_record_offset()) <= last:  # it is known after the block only
                raise UnreadableError("a gzip member holds several records")
            last = offset
            yield RawRecord(offset, headers, block, is_whole)
        if records.err_count:
            raise UnreadableError("the last record is not followed by a blank line")
    except (ArchiveLoadFailed, zlib.error, OSError) as error:
        raise UnreadableError(str(error)) from None
