"""JSON Lines files, one object per line, plain or compressed (gzip, zstd) by their name's ending."""

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

from cs336_basics.atomic_file import atomic_write

SUFFIXES = (".jsonl", ".ndjson", ".json", ".jl")
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)
# Level 3 is zstd's default: 300 MB/s, and a third of the size for English text.
_ZSTD_LEVEL = 3


class DamagedFileError(ValueError):
    """The compressed data breaks off or is wrong; what came before has been handed out."""


def is_json_lines(path: str | os.PathLike) -> bool:
    """Whether the file's name is one of a JSON Lines file."""
    name = Path(path).name.lower().removesuffix(".gz").removesuffix(".zst")
    return name.endswith(SUFFIXES)


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, bytes]]:
    """The file's lines, without their ends, each with its offset in the uncompressed bytes.

    Raises:
        DamagedFileError: after the last sound line of a file whose compressed data is damaged.
    """
    offset = 0
    with _open(path) as file:
        while True:
            try:
                line = file.readline()
            except _DAMAGE as error:
                raise DamagedFileError(f"compressed data that cannot be read ({error})") from None
            if not line:
                return
            yield offset, line.rstrip(b"\r\n")
            offset += len(line)


def read_objects(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The objects of a file that this project wrote."""
    return (json.loads(line) for _, line in read_lines(path))


@contextmanager
def write_objects(path: str | os.PathLike) -> Iterator["ObjectWriter"]:
    """Write a zstd-compressed JSON Lines file, which appears whole or not at all."""
    with (
        atomic_write(path) as file,
        zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(file, closefd=False) as stream,
    ):
        yield ObjectWriter(stream)


class ObjectWriter:
    """Appends objects to an open file, one per line."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.count = 0

    def write(self, value: dict[str, Any]) -> None:
        """Append one object."""
        self._stream.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self.count += 1


@contextmanager
def _open(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    with open(path, "rb") as file:
        if str(path).lower().endswith(".gz"):
            yield gzip.GzipFile(fileobj=file)
        elif str(path).lower().endswith(".zst"):
            # A small buffer: what it holds when damage is met is lost.
            yield io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True), 1 << 16)
        else:
            yield file
