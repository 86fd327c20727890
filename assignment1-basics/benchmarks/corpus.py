"""The text that a benchmark of the tokenizer runs on: files, or generated stories, repeated up to a size."""

from collections.abc import Iterator
from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_basics.stories import END_OF_TEXT, write_stories

DIFFERENT_STORIES = 10_000_000
"""Bytes of stories that are generated; more are repeated."""


def write_corpus(path: Path, files: list[Path], size: int) -> None:
    """Write `size` bytes or slightly more to `path`: the files (none: stories) in turn, `<|endoftext|>` between."""
    for file in files:
        if not file.is_file():
            raise UsageError(f"there is no text file {file}")
    if files:
        text = b"".join(file.read_bytes() + END_OF_TEXT.encode() for file in files)
    else:
        write_stories(path, min(size, DIFFERENT_STORIES), seed=0)
        text = path.read_bytes()
    if not text:
        raise UsageError("the files given with --text are empty")
    with open(path, "wb") as file:
        written = 0
        while written < size:
            written += file.write(text)


def read_pieces(path: str, piece_bytes: int = 1 << 22) -> Iterator[str]:
    """The text in pieces of about `piece_bytes` that end after an `<|endoftext|>`, for tools that take strings."""
    end = END_OF_TEXT.encode()
    kept = b""
    with open(path, "rb") as file:
        while block := file.read(piece_bytes):
            kept += block
            cut = kept.rfind(end)
            if cut >= 0:
                yield kept[: cut + len(end)].decode()
                kept = kept[cut + len(end) :]
    if kept:
        yield kept.decode()
