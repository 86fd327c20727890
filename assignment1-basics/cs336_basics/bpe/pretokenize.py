"""Cutting text into pre-tokens, the pieces that BPE merges never cross: GPT-2's pattern and special tokens.

Special tokens split the text (`split_at_special_tokens`) and GPT-2's pattern splits what is between them (`pretokens`).
What is a letter, a number or white space follows one declared version of Unicode (`unicode_classes`), so that the same
text gives the same pre-tokens whatever version the installed `regex` package knows.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2, and the pattern that
was published with GPT-2's code.
"""

from collections.abc import Iterable, Iterator

import regex

from cs336_basics.bpe.unicode_classes import class_of
from cs336_basics.command_line import UsageError

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""An English contraction; letters, numbers or other characters, each with one leading space glued on; white space."""

_find_pretokens = regex.compile(GPT2_PATTERN).findall
_find_spans = regex.compile(GPT2_PATTERN).finditer


def pretokens(text: str) -> list[str]:
    """Split a text without special tokens by GPT-2's pattern; the pieces joined are the text again."""
    classified = _with_declared_classes(text)
    if classified is text:
        return _find_pretokens(text)
    return [text[match.start() : match.end()] for match in _find_spans(classified)]


def check_special_tokens(special_tokens: Iterable[str]) -> list[str]:
    """Return the special tokens as a list.

    Raises:
        UsageError: one is empty, appears twice, or cannot be written as UTF-8.
    """
    checked: list[str] = []
    for token in special_tokens:
        if not isinstance(token, str) or not token:
            raise UsageError(f"special token {token!r} is not allowed: it must be a string of at least one character")
        if token in checked:
            raise UsageError(f"special token {token!r} is given twice: each must be different")
        try:
            token.encode()
        except UnicodeEncodeError:
            raise UsageError(f"special token {token!r} holds a surrogate, which UTF-8 cannot store") from None
        checked.append(token)
    return checked


def special_token_pattern(special_tokens: Iterable[str]) -> "regex.Pattern[str] | None":
    """The pattern that finds the leftmost special token and, among several that start there, the longest.

    Alternatives are tried in order, so sorting by length makes the longest win. None where there are no special tokens.
    """
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first))) if longest_first else None


def split_at_special_tokens(text: str, pattern: "regex.Pattern[str] | None") -> Iterator[tuple[str, bool]]:
    """Yield (piece, is_special) from left to right; no piece is empty, and all pieces joined are `text`."""
    start = 0
    for match in pattern.finditer(text) if pattern else ():
        if match.start() > start:
            yield text[start : match.start()], False
        yield match.group(), True
        start = match.end()
    if start < len(text):
        yield text[start:], False


_PATTERN_OF_CLASS = (r"[^\p{L}\p{N}\s]", r"\p{L}", r"\p{N}", r"\s")
_STAND_IN_OF_CLASS = "\ue000a0 "
"""For each class of `unicode_classes` (other, letter, number, white space): its pattern, and one character of it."""

_compared = set(map(chr, range(128)))
"""The characters met so far. Unicode never changes ASCII."""
_stand_ins: dict[str, str] = {}
"""Those of them that the installed `regex` classes differently, and what to show it instead."""


def _with_declared_classes(text: str) -> str:
    """`text` itself or, where it has characters of another Unicode version, an equally long text to match instead."""
    if text.isascii():
        return text
    characters = set(text)
    if not characters <= _compared:
        for character in characters - _compared:
            declared = class_of(character)
            if not regex.match(_PATTERN_OF_CLASS[declared], character):
                _stand_ins[character] = _STAND_IN_OF_CLASS[declared]
        _compared.update(characters)
    if _stand_ins.keys().isdisjoint(characters):
        return text
    return text.translate(str.maketrans(_stand_ins))
