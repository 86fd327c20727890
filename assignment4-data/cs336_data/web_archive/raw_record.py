"""What an archive reader hands over: a record's own header and its block, nothing decoded."""

from typing import NamedTuple


class UnreadableError(Exception):
    """The reader cannot go on: what follows the last record it gave is damaged or no record."""


class RawRecord(NamedTuple):
    """A record as it stands in the archive.

    Attributes:
        offset: where it begins, in bytes.
        headers: the WARC header's fields, names in lower case; of a repeated field the last.
        block: what follows the header, as far as it is there.
        is_whole: whether the block is as long as the header says.
    """

    offset: int
    headers: dict[str, str]
    block: bytes
    is_whole: bool
