"""What two texts are compared by: lower case, without accents and punctuation, single spaces."""

import string
import unicodedata
from functools import lru_cache

import regex

_ASCII_SPACES = b"\t\n\v\f\r\x1c\x1d\x1e\x1f"
_ASCII_TABLE = bytes.maketrans(
    string.ascii_uppercase.encode() + _ASCII_SPACES, string.ascii_lowercase.encode() + b" " * len(_ASCII_SPACES)
)
_ASCII_PUNCTUATION = string.punctuation.encode()
_NON_ASCII = regex.compile(r"[^\x00-\x7f]+")
_STRIPPED = regex.compile(r"[\p{P}\p{Mn}]+")
_SPACE = regex.compile(r"\s")


def normalize_text(text: str) -> str:
    """The text in lower case and Unicode's NFD form, without punctuation and accents, white space folded.

    Punctuation is Unicode's category P and ASCII's `string.punctuation`; accents are its nonspacing marks (Mn). Both
    vanish ("don't" -> "dont"); any run of white space becomes one space, and none is left at either end.
    """
    return " ".join(normalized_bytes(text).decode("utf-8", "surrogatepass").split())


def normalized_bytes(text: str) -> bytes:
    """The same as UTF-8, except that white space is spaces only, but not folded yet.

    Most characters of most texts are ASCII, and bytes have a fast way for those; the rest is normalized run by run,
    which is exact because no ASCII character combines with the one before it.
    """
    if not text.isascii():
        text = _NON_ASCII.sub(_strip_run, text.lower())
    return text.encode("utf-8", "surrogatepass").translate(_ASCII_TABLE, _ASCII_PUNCTUATION)


def _strip_run(run: regex.Match) -> str:
    return _strip(run[0])


@lru_cache(1 << 16)
def _strip(characters: str) -> str:
    return _SPACE.sub(" ", _STRIPPED.sub("", unicodedata.normalize("NFD", characters)))
