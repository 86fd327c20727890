"""Finding the lexicon's terms in a text, however they are spelled.

Every word is looked up as it is written, then with its disguises undone (`spelling.py`): look-alike letters and
invisible characters, digits and symbols for letters ("sh1t"), stretched letters ("fuuuck"), letters masked by symbols
("f*ck", "c***"), and single letters with gaps ("f u c k"). Only whole words count, so no innocent word is found by what
it holds, as Scunthorpe was by the first filters of this kind.
"""

from collections.abc import Iterable
from functools import lru_cache
from operator import methodcaller
from typing import NamedTuple

import regex

from cs336_data.lexicon.spelling import fits_mask, is_masked, is_stretched, plain, runs, without_leet
from cs336_data.lexicon.terms import Term, lexicon

_WORD = regex.compile(r"""[^\s.,;:"()\[\]{}<>/\\…“”«»„—–=~^`]++""")
_OUTER = "'’‘*!?_-+%&#•|@"
_APOSTROPHES = str.maketrans("", "", "'’‘")
_LETTER_WITH_GAPS = regex.compile(r"(?<![^\W_])[^\W\d_](?:[ \t.\-_*•·]{1,3}[^\W\d_](?![^\W_]))++")
_written = methodcaller("group")
_NEAR = 3
"""An insult is directed at the reader when "you" stands at most this many words away."""
_YOU = frozenset(["you", "your", "youre", "yourself", "yourselves", "u", "ur", "ya"])


class Match(NamedTuple):
    """A term found: characters `start` up to `end` of the text, and whether it is an insult next to "you"."""

    start: int
    end: int
    term: Term
    directed: bool = False


@lru_cache(maxsize=2)  # the filters for NSFW content and for toxic speech ask for the same text one after the other
def find_terms(text: str) -> tuple[Match, ...]:
    """The lexicon's terms in a text, in order of their starts; phrases go before the words that they hold."""
    words = list(_WORD.finditer(text))
    suspects = {written for written in set(map(_written, words)) if _is_suspect(written)}
    matches = []
    skip_to = 0
    for i, word in enumerate(words):
        written = word.group()
        if i < skip_to or written not in suspects:
            continue
        if found := _phrase_at(words, i):
            term, length = found
            skip_to = i + length
            if term.category != "innocent":
                matches.append(Match(word.start(), words[skip_to - 1].end(), term))
        elif (term := find_word(written)) and not (term.may_be_name and _is_capitalized(written)):
            directed = term.category == "insult" and _directed(words, i)
            matches.append(Match(*word.span(), term, directed))
    matches.extend(_words_with_gaps(text))
    return tuple(sorted(matches, key=lambda match: match.start))


def count_words(text: str) -> int:
    """How many words a text has, as they are split here."""
    return sum(1 for _ in _WORD.finditer(text))


@lru_cache(maxsize=1 << 17)
def find_word(written: str) -> Term | None:
    """The term that one word spells, masked or not; None if it spells none."""
    whole = plain(written)
    stripped = whole.strip(_OUTER)
    known = lexicon()
    for word in dict.fromkeys((stripped.translate(_APOSTROPHES), stripped, whole)):
        if term := known.words.get(word):
            return term
        for reading in (word, *without_leet(word)):
            if reading.isalpha() and (term := _find_letters(reading)):
                return term
    # The asterisks of "c***" hide letters; those of "*note*" are only around.
    for word in dict.fromkeys((stripped, whole.strip("'’‘!?,"))):
        if is_masked(word):
            for term in known.by_shape.get((word[0], len(word)), ()):
                if fits_mask(word, term.text):
                    return term
    return None


def _find_letters(word: str) -> Term | None:
    known = lexicon()
    letters, lengths = runs(word)
    for wanted, term in known.by_letters.get(letters, ()):
        if is_stretched(lengths, wanted):
            return term
    return next((part for part in known.parts if part.text in word), None)


@lru_cache(maxsize=1 << 17)
def _is_suspect(written: str) -> bool:
    """Whether a word is a term, or may begin a phrase: all others need no look at their places."""
    return find_word(written) is not None or _simple(written) in lexicon().phrases


@lru_cache(maxsize=1 << 17)
def _simple(written: str) -> str:
    return plain(written).strip(_OUTER).translate(_APOSTROPHES)


def _is_capitalized(written: str) -> bool:
    letters = written.strip(_OUTER)
    return letters[:1].isupper() and not letters.isupper()


def _phrase_at(words: list[regex.Match], start: int) -> tuple[Term, int] | None:
    for phrase, term in lexicon().phrases.get(_simple(words[start].group()), ()):
        found = words[start : start + len(phrase)]
        if tuple(_simple(word.group()) for word in found) == phrase:
            return term, len(phrase)
    return None


def _directed(words: list[regex.Match], i: int) -> bool:
    return any(_simple(word.group()) in _YOU for word in words[max(i - _NEAR, 0) : i + _NEAR + 1])


def _words_with_gaps(text: str) -> Iterable[Match]:
    known = lexicon()
    for match in _LETTER_WITH_GAPS.finditer(text):
        letters = "".join(filter(str.isalpha, plain(match.group())))
        term = known.words.get(letters) or next((part for part in known.parts if part.text in letters), None)
        if term and term.severity > 1:
            yield Match(*match.span(), term)
