"""The fast reader: FastWARC (https://resiliparse.chatnoir.eu/en/stable/man/fastwarc.html), written in Rust."""

from collections.abc import Iterator

from fastwarc import ArchiveIterator

from cs336_data.web_archive.archive_file import ArchiveFile
from cs336_data.web_archive.raw_record import RawRecord, UnreadableError


def raw_records(archive: ArchiveFile, start: int) -> Iterator[RawRecord]:
    """The records from `start`, up to the end or to the first that FastWARC cannot read.

    Raises:
        UnreadableError: FastWARC gives up. (A file that is merely cut short ends without that.)
    """
    try:
        for record in ArchiveIterator(archive.stream_from(start), parse_http=False):
            headers = {name.lower(): value for name, value in record.headers.to_tuples()}
            block = record.reader.read()
            is_whole = "content-length" in headers and len(block) == record.content_length
            yield RawRecord(record.stream_pos, headers, block, is_whole)
    except OSError as error:
        raise UnreadableError(str(error)) from None
