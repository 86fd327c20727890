"""The terms of the lexicon, read from `terms.txt`, which explains its notation; arranged for looking up."""

import functools
import re
from collections import defaultdict
from importlib import resources
from typing import NamedTuple

from cs336_data.lexicon.spelling import runs

VERB_ENDINGS = ("s", "ed", "er", "ers", "ing", "in")
_HEADER = re.compile(r"(\w+) ([123]):$")


class Term(NamedTuple):
    """One term: how it is written, what it is, how bad (1 to 3), and whether a capital makes a name of it."""

    text: str
    category: str
    severity: int
    may_be_name: bool = False


class Lexicon(NamedTuple):
    """Terms by the ways they are looked up."""

    words: dict[str, Term]
    by_letters: dict[str, list[tuple[tuple[int, ...], Term]]]  # "bobs": [((1, 2, 1, 1), boobs)]
    by_shape: dict[tuple[str, int], list[Term]]  # first letter and length, for masked words of severity 2 and 3
    parts: list[Term]  # those that match anywhere inside a word
    phrases: dict[str, list[tuple[tuple[str, ...], Term]]]  # by the first word, the longest first


def _forms(notation: str) -> list[str]:
    if notation.endswith("~"):
        stem = notation[:-1]
        return [stem, *(stem.removesuffix("e") + e if e[0] in "ei" else stem + e for e in VERB_ENDINGS)]
    if notation.endswith("+"):
        stem = notation[:-1]
        return [stem, stem + ("es" if stem.endswith(("s", "x", "ch", "sh")) else "s")]
    return [notation]


@functools.cache
def lexicon() -> Lexicon:
    """The lexicon of the package; read once."""
    found = Lexicon({}, defaultdict(list), defaultdict(list), [], defaultdict(list))
    category, severity = "", 0
    text = resources.files(__package__).joinpath("terms.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if header := _HEADER.match(line):
            category, severity = header[1], int(header[2])
            continue
        for notation in filter(None, map(str.strip, line.split(","))):
            may_be_name = notation.endswith("^")
            notation = notation.removesuffix("^")
            if part := re.fullmatch(r"\*(\w+)\*", notation):
                found.parts.append(Term(part[1], category, severity))
                notation = part[1]
            for form in _forms(notation):
                _add(found, Term(form, category, severity, may_be_name))
    for phrases in found.phrases.values():
        phrases.sort(key=lambda entry: -len(entry[0]))
    return found


def _add(found: Lexicon, term: Term) -> None:
    words = tuple(term.text.split())
    if len(words) > 1:
        found.phrases[words[0]].append((words, term))
        return
    if term.text in found.words:  # the first mention counts
        return
    found.words[term.text] = term
    letters, lengths = runs(term.text)
    found.by_letters[letters].append((lengths, term))
    if term.severity > 1 and len(term.text) >= 4:
        found.by_shape[term.text[0], len(term.text)].append(term)
