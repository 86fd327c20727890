"""Special tokens as flat arrays, and where they occur in a text (leftmost first, the longest of several)."""

from typing import NamedTuple

import numpy as np

from ..text_blocks import REPLACEMENT
from .bits import has_byte64
from .jit import kernel


class SpecialTokens(NamedTuple):
    """Special tokens as the kernels see them, the longest first."""

    text: np.ndarray
    """uint8: all tokens one after another."""
    offsets: np.ndarray
    """int64, one more than tokens: token k is text[offsets[k]:offsets[k + 1]]."""
    first_bytes: np.ndarray
    """uint8: the different bytes that tokens begin with."""
    is_first_byte: np.ndarray
    """bool[256]: the same, by byte."""


class Occurrences(NamedTuple):
    """The special tokens found in a text, in order."""

    position: np.ndarray
    """int64: index of the first byte."""
    length: np.ndarray
    """int64: bytes."""
    token: np.ndarray
    """int64: which token, as an index into `SpecialTokens`."""


def longest_first(special_tokens: list[str]) -> list[bytes]:
    """The distinct special tokens as bytes, the longest first: the first that fits is then the one wanted."""
    return sorted({token.encode() for token in special_tokens}, key=lambda token: (-len(token), token))


def replacement_is_special(special_tokens: list[bytes]) -> bool:
    """Whether mending malformed bytes can make a special token: then it comes before the search for them."""
    return any(REPLACEMENT in token for token in special_tokens)


def pack_special_tokens(tokens: list[bytes]) -> SpecialTokens:
    """Arrays for the kernels from `longest_first(...)`."""
    offsets = np.zeros(len(tokens) + 1, dtype=np.int64)
    offsets[1:] = np.cumsum([len(token) for token in tokens])
    first_bytes = np.array(sorted({token[0] for token in tokens}), dtype=np.uint8)
    is_first_byte = np.zeros(256, dtype=np.bool_)
    is_first_byte[first_bytes] = True
    text = np.frombuffer(b"".join(tokens) + b"\0", dtype=np.uint8).copy()
    return SpecialTokens(text, offsets, first_bytes, is_first_byte)


@kernel
def _token_at(text: np.ndarray, position: int, end: int, specials: SpecialTokens) -> int:
    """The longest special token that stands at `position`, or -1."""
    for k in range(specials.offsets.shape[0] - 1):
        first = specials.offsets[k]
        size = specials.offsets[k + 1] - first
        same = 0
        while same < size and position + same < end and text[position + same] == specials.text[first + same]:
            same += 1
        if same == size:
            return k
    return -1


@kernel
def _find(
    text: np.ndarray, end: int, specials: SpecialTokens, position: np.ndarray, length: np.ndarray, token: np.ndarray
) -> int:
    """Fill the three arrays as far as they reach; returns how many occurrences there are in text[:end]."""
    found = 0
    position_end = 0  # of the last one found
    for begin in range(0, end, 64):
        has_first_byte = False  # nearly all stretches of text have none
        for k in range(specials.first_bytes.shape[0]):
            has_first_byte |= has_byte64(text, begin, specials.first_bytes[k])
        if not has_first_byte:
            continue
        for i in range(max(begin, position_end), min(begin + 64, end)):
            if i < position_end or not specials.is_first_byte[text[i]]:
                continue
            k = _token_at(text, i, end, specials)
            if k >= 0:
                size = specials.offsets[k + 1] - specials.offsets[k]
                if found < position.shape[0]:
                    position[found] = i
                    length[found] = size
                    token[found] = k
                found += 1
                position_end = i + size
    return found


def find_special_tokens(text: np.ndarray, end: int, specials: SpecialTokens) -> Occurrences:
    """All special tokens in text[:end], without overlaps, as a left-to-right search meets them.

    `text` must be readable for 64 bytes beyond `end`.
    """
    room = 0 if len(specials.offsets) == 1 else 1024
    while True:
        found = Occurrences(*(np.empty(room, dtype=np.int64) for _ in range(3)))
        count = _find(text, end, specials, *found) if room else 0
        if count <= room:
            return Occurrences(*(column[:count] for column in found))
        room = count
