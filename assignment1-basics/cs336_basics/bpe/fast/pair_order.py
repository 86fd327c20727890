"""Which of two pairs is merged first: the more frequent; of equally frequent ones, the greater pair of byte strings.

A pair (a, b) of token ids is one key, a in the upper 32 bits and b in the lower. Tokens are compared by their first 8
bytes at once, `Tokens.prefix`, a big-endian number; only where those are equal does the comparison go on by bytes.
"""

from typing import NamedTuple

import numpy as np

from .jit import kernel

COUNT, KEY = range(2)
_LOW_HALF = 0xFFFFFFFF


class Tokens(NamedTuple):
    """The bytes of all tokens, as places in one text."""

    text: np.ndarray
    """uint8: holds every token somewhere."""
    position: np.ndarray
    """int64: where the token's bytes are in `text`."""
    length: np.ndarray
    """int64: how many bytes it has."""
    prefix: np.ndarray
    """uint64: its first 8 bytes, the first one highest, filled up with zeros."""


@kernel
def pair_key(left: int, right: int) -> int:
    """The pair as one number."""
    return (left << 32) | right


@kernel
def key_left(key: int) -> int:
    """The left token of a pair."""
    return key >> 32


@kernel
def key_right(key: int) -> int:
    """The right token of a pair."""
    return key & _LOW_HALF


@kernel
def set_token(token: int, position: int, length: int, tokens: Tokens) -> None:
    """Say where the bytes of a token are."""
    tokens.position[token] = position
    tokens.length[token] = length
    prefix = np.uint64(0)
    for i in range(min(8, length)):
        prefix |= np.uint64(tokens.text[position + i]) << np.uint64(56 - 8 * i)
    tokens.prefix[token] = prefix


@kernel
def _token_less(a: int, b: int, tokens: Tokens) -> bool:
    """Whether the bytes of `a` come before those of `b`."""
    if tokens.prefix[a] != tokens.prefix[b]:
        return tokens.prefix[a] < tokens.prefix[b]
    shorter = min(tokens.length[a], tokens.length[b])
    for i in range(8, shorter):
        byte_a = tokens.text[tokens.position[a] + i]
        byte_b = tokens.text[tokens.position[b] + i]
        if byte_a != byte_b:
            return byte_a < byte_b
    return tokens.length[a] < tokens.length[b]


@kernel
def _entry_less(count_a: int, key_a: int, count_b: int, key_b: int, tokens: Tokens) -> bool:
    """Whether pair b goes before pair a."""
    if count_a != count_b:
        return count_a < count_b
    if key_left(key_a) != key_left(key_b):
        return _token_less(key_left(key_a), key_left(key_b), tokens)
    return key_right(key_a) != key_right(key_b) and _token_less(key_right(key_a), key_right(key_b), tokens)


@kernel
def heap_push(heap: np.ndarray, size: int, count: int, key: int, tokens: Tokens) -> None:
    """Add a pair to a heap of `size` entries; heap: int64[:, 2] with the columns COUNT and KEY, best first."""
    hole = size
    while hole > 0:
        parent = (hole - 1) >> 1
        if not _entry_less(heap[parent, COUNT], heap[parent, KEY], count, key, tokens):
            break
        heap[hole, COUNT] = heap[parent, COUNT]
        heap[hole, KEY] = heap[parent, KEY]
        hole = parent
    heap[hole, COUNT] = count
    heap[hole, KEY] = key


@kernel
def heap_sift(heap: np.ndarray, hole: int, size: int, count: int, key: int, tokens: Tokens) -> None:
    """Let an entry sink from `hole` to its place."""
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and _entry_less(
            heap[child, COUNT], heap[child, KEY], heap[child + 1, COUNT], heap[child + 1, KEY], tokens
        ):
            child += 1
        if not _entry_less(count, key, heap[child, COUNT], heap[child, KEY], tokens):
            break
        heap[hole, COUNT] = heap[child, COUNT]
        heap[hole, KEY] = heap[child, KEY]
        hole = child
    heap[hole, COUNT] = count
    heap[hole, KEY] = key


@kernel
def grown_heap(heap: np.ndarray, size: int, room: int) -> np.ndarray:
    """The same entries in an array for `room` of them."""
    larger = np.empty((room, 2), dtype=np.int64)
    for i in range(size):
        larger[i, COUNT] = heap[i, COUNT]
        larger[i, KEY] = heap[i, KEY]
    return larger
