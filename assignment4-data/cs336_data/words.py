"""Words and lines of a text, as the rule filters count them.

A word is a run of letters and digits, with accents set apart from their letters (NFD), single apostrophes and hyphens
("don't", "well-known") and the separators of a number ("1,234.5") inside. White space does not matter: "the end.The
next" has four words. Punctuation belongs to no word; a run of symbols that stands alone between spaces is a symbol
("|", "->", "***").
"""

import re
from itertools import accumulate
from typing import NamedTuple

WORD = re.compile(r"[^\W_]++(?:(?:['’\-]|[\u0300-\u036f]++|(?<=\d)[.,:/](?=\d))[^\W_]++)*+[\u0300-\u036f]*+")
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


def blank_line_between(text: str, first: Line, second: Line) -> bool:
    """Whether a blank line lies between two lines of a text, of which `first` comes first."""
    # The marks make the ends of the two lines themselves, which are not blank.
    between = f"|{text[first.end : second.start]}|".splitlines()
    return not all(map(str.strip, between))


def paragraphs_of(text: str) -> list[Line]:
    """The stretches between blank lines, stripped, with their places."""
    groups: list[list[Line]] = []
    for line in lines_of(text):
        if groups and not blank_line_between(text, groups[-1][-1], line):
            groups[-1].append(line)
        else:
            groups.append([line])
    return [Line(group[0].start, group[-1].end, text[group[0].start : group[-1].end]) for group in groups]
