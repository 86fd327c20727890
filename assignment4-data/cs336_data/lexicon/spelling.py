"""Undoing what hides a word: look-alike letters, invisible characters, digits for letters, asterisks, stretching."""

import itertools
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

LOOK_ALIKES = str.maketrans(
    "авеёѕікӏмнорстухԁԛԝјһɡαβεηικνορτυχωıł",
    "abeesiklmhopctyxdqwjhgabenikvoptuxwil",
)
"""Lower-case Cyrillic, Greek and other letters that look like Latin ones."""

LEET = str.maketrans({"0": "o", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g"}) | str.maketrans(
    {"@": "a", "$": "s", "€": "e", "+": "t"}
)
BARS = ("1", "!", "|")  # stand for i or for l
MASKS = frozenset("*@#$%&!?_-+•")
"""Symbols that may stand for any one letter inside a word."""


def plain(word: str) -> str:
    """The word in lower case, without accents and invisible characters, look-alike letters made Latin."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.lower()).lower()
    # Mn: accents and other marks; Cf: zero-width spaces and joiners, soft hyphens, direction marks.
    kept = "".join(each for each in decomposed if unicodedata.category(each) not in ("Mn", "Cf"))
    # A word without any Latin letter is no English word in disguise.
    return kept.translate(LOOK_ALIKES) if any("a" <= each <= "z" for each in kept) else kept


def without_leet(word: str) -> Iterator[str]:
    """The readings of a plain word whose digits and symbols stand for letters; digits are at most half of it."""
    if word.isalpha() or sum(map(str.isalpha, word)) < max(sum(map(str.isdigit, word)), 1):
        return
    word = word.translate(LEET)
    for letter in "il" if any(bar in word for bar in BARS) else "i":
        reading = word
        for bar in BARS:
            reading = reading.replace(bar, letter)
        if reading.isalpha():
            yield reading


def is_masked(word: str) -> bool:
    """Whether symbols hide letters of a plain word: inside it ("f*ck"), or at least two at its end ("c***")."""
    if len(word) < 4 or not word[0].isalpha() or not all(each.isalpha() or each in MASKS for each in word):
        return False
    masked = sum(each in MASKS for each in word)
    if not masked:
        return False
    if word[-1].isalpha():
        return masked <= len(word) // 2
    return word.endswith("**") and set(word) & MASKS == {"*"}


def fits_mask(word: str, term: str) -> bool:
    """Whether a masked word may be a term: as long, and equal wherever it shows a letter."""
    return len(word) == len(term) and all(a == b or a in MASKS for a, b in zip(word, term, strict=True))


@lru_cache(maxsize=1 << 16)
def runs(word: str) -> tuple[str, tuple[int, ...]]:
    """A word as its letters without repetition and how often each is repeated: "boobs" is ("bobs", (1, 2, 1, 1))."""
    groups = [(letter, sum(1 for _ in group)) for letter, group in itertools.groupby(word)]
    return "".join(letter for letter, _ in groups), tuple(length for _, length in groups)


def is_stretched(word: tuple[int, ...], term: tuple[int, ...]) -> bool:
    """Whether each letter of a word stands at least as often in a row as in the term: not so in "as" for "ass"."""
    return all(mine >= its for mine, its in zip(word, term, strict=True))
