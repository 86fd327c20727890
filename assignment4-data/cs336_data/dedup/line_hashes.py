"""Lines of a text as 128-bit hashes, and a text without some of its lines.

Lines are what newlines end; a last line without one is a line like the others. They compare byte by byte. Two
different lines out of n get the same hash with probability n² / 2¹²⁹: 10⁻¹⁵ for a trillion lines.
"""

from collections.abc import Sequence
from typing import AnyStr, NamedTuple, Protocol

import numpy as np
import xxhash
from jaxtyping import Bool

LINE_HASH = np.dtype("S16")
"""One hash: 16 bytes, which sort and compare as such."""


class LineSet(Protocol):
    """A set of lines, known by their hashes."""

    def contains(self, hashes: np.ndarray) -> Bool[np.ndarray, " lines"]:
        """Which of the hashes belong to it."""
        ...


class WithoutLines(NamedTuple):
    """A text from which lines were removed, and where these stood in the old one: (start, end) without newline."""

    text: AnyStr
    removed: list[tuple[int, int]]


def split_lines(text: AnyStr) -> list[AnyStr]:
    """The lines of a text or of bytes, without their newlines."""
    newline = "\n" if isinstance(text, str) else b"\n"
    lines = text.split(newline)
    if not lines[-1]:
        lines.pop()
    return lines


def line_hashes(text: str | bytes) -> np.ndarray:
    """The hash of every line: an array of `LINE_HASH`; a str's lines are hashed as UTF-8."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return np.array([xxhash.xxh3_128_digest(line) for line in split_lines(data)], LINE_HASH)


def remove_lines(text: AnyStr, lines: LineSet) -> WithoutLines:
    """The text without the lines of the set; what stays is verbatim, newlines included."""
    is_removed = lines.contains(line_hashes(text))
    if not is_removed.any():
        return WithoutLines(text, [])
    return _without(text, split_lines(text), is_removed)


def _without(text: AnyStr, lines: Sequence[AnyStr], is_removed: Bool[np.ndarray, " lines"]) -> WithoutLines:
    kept, removed, start = [], [], 0
    for line, gone in zip(lines, is_removed, strict=True):
        end = start + len(line)
        if gone:
            removed.append((start, end))
        else:
            kept.append(text[start : end + 1])
        start = end + 1
    return WithoutLines(text[:0].join(kept), removed)
