"""Words and lines of a text, as the rule filters count them.

A word is a run of letters, marks and digits, with single apostrophes and hyphens inside ("don't", "well-known") and the
separators inside a number ("1,234.5"). White space does not matter: "the end.The next" has four words. Punctuation
belongs to no word; a run of symbols that stands alone between spaces is a symbol ("|", "->", "***").
"""

from itertools import accumulate
from typing import NamedTuple

import regex

WORD = regex.compile(r"[^\W_]++(?:(?:['’\-]|(?<=\d)[.,:/](?=\d))[^\W_]++)*+")
ELLIPSES = ("...", "…")


class Line(NamedTuple):
    """A line that is not blank: characters `start` up to `end` of the text, without the white space around it."""

    start: int
    end: int
    text: str


def words_of(text: str) -> list[str]:
    """The words of a text, in order, as they are written."""
    return WORD.findall(text)


def lone_symbols(text: str) -> list[str]:
    """The runs of symbols between white space that hold neither letter nor digit, in order."""
    return [run for run in text.split() if not run[0].isalnum() and not any(character.isalnum() for character in run)]


def has_letter(word: str) -> bool:
    """Whether a word holds a letter of any script."""
    return any(character.isalpha() for character in word)


def lines_of(text: str) -> list[Line]:
    """The lines of a text that are not blank, stripped, with their places."""
    pieces = text.splitlines(keepends=True)
    starts = accumulate(map(len, pieces), initial=0)
    lines = []
    for start, piece in zip(starts, pieces, strict=False):
        if stripped := piece.strip():
            start += len(piece) - len(piece.lstrip())
            lines.append(Line(start, start + len(stripped), stripped))
    return lines
