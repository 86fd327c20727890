"""A hash table from pre-tokens ("words") to one number each, for kernels: no Python objects, no locks.

A row is four 64-bit numbers. A word of up to 15 bytes is stored in the row itself: its first 8 bytes in LOW, the others
in HIGH, whose top byte holds the length. Of a longer word, LOW holds a hash, HIGH the mark 255 in its top byte and the
word's offset in the array `letters`. The lower half of LENGTH is the length; the upper half is the user's. HIGH is 0 in
a free row. Collisions go to the next free row; the table is kept at most half full.
"""

from typing import NamedTuple

import numpy as np

from .bits import load8, trailing_zeros, word_masks
from .jit import kernel

LOW, HIGH, VALUE, LENGTH = range(4)
USED_ROWS, USED_LETTERS = range(2)
SHORT_LIMIT = 15
"""Words of up to this many bytes live in their row."""

_KEEP_LOW, _KEEP_HIGH = word_masks(SHORT_LIMIT)
_ZERO, _ONE, _EIGHT = np.uint64(0), np.uint64(1), np.uint64(8)
_TOP_BYTE, _LONG_MARK = np.uint64(56), np.uint64(255)
_LENGTH_MASK = np.uint64(0xFFFFFFFF)
_OFFSET_MASK = np.uint64((1 << 56) - 1)
# Odd numbers without a pattern (the golden ratio, a prime of xxHash): a product with them mixes bits upwards.
_MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class WordTable(NamedTuple):
    """The table's arrays; `grown` makes a larger one."""

    rows: np.ndarray
    """uint64[a power of two, 4]."""
    letters: np.ndarray
    """uint8: the long words, one after another."""
    used: np.ndarray
    """int64[2]: occupied rows, occupied bytes of `letters`."""


def new_word_table(num_rows: int = 1 << 15) -> WordTable:
    """An empty table of `num_rows` rows, a power of two."""
    return WordTable(
        np.zeros((num_rows, 4), dtype=np.uint64), np.empty(1 << 16, dtype=np.uint8), np.zeros(2, dtype=np.int64)
    )


@kernel
def _hash_short(low: np.uint64, high: np.uint64) -> np.uint64:
    mixed = (low ^ (high * _MIX_2)) * _MIX_1
    return (mixed ^ (mixed >> np.uint64(32))) * _MIX_2


@kernel
def _hash_long(text: np.ndarray, position: int, length: int) -> np.uint64:
    mixed = np.uint64(length) * _MIX_2
    for i in range(0, length, 8):
        word = load8(text, position + i)
        if i + 8 > length:
            word &= _KEEP_LOW[length - i]
        mixed = (mixed ^ word) * _MIX_1
        mixed ^= mixed >> np.uint64(29)
    return mixed * _MIX_2


@kernel
def _home_row(hashed: np.uint64, num_rows: int) -> int:
    """The row where the search begins: the hash's highest bits, its best mixed ones."""
    return np.int64(hashed >> np.uint64(64 - trailing_zeros(np.uint64(num_rows))))


@kernel
def _short_key(text: np.ndarray, position: int, length: int) -> tuple[np.uint64, np.uint64]:
    low = load8(text, position) & _KEEP_LOW[length]
    high = (load8(text, position + 8) & _KEEP_HIGH[length]) | (np.uint64(length) << _TOP_BYTE)
    return low, high


@kernel
def _same_letters(a: np.ndarray, a_first: int, b: np.ndarray, b_first: int, length: int) -> bool:
    i = 0
    while i < length and a[a_first + i] == b[b_first + i]:
        i += 1
    return i == length


@kernel
def find_short_row(text: np.ndarray, position: int, length: int, rows: np.ndarray) -> int:
    """The row of a word of up to `SHORT_LIMIT` bytes; -1 - row if it is absent and `row` is free for it."""
    low, high = _short_key(text, position, length)
    row = _home_row(_hash_short(low, high), rows.shape[0])
    while rows[row, LOW] != low or rows[row, HIGH] != high:
        if rows[row, HIGH] == _ZERO:
            return -1 - row
        row = (row + 1) & (rows.shape[0] - 1)
    return row


@kernel
def find_long_row(text: np.ndarray, position: int, length: int, table: WordTable) -> int:
    """The same for a longer word. Apart, because the compiler inlines the short one only if it stands alone."""
    rows = table.rows
    low = _hash_long(text, position, length)
    row = _home_row(low, rows.shape[0])
    while rows[row, HIGH] != _ZERO:
        high = rows[row, HIGH]
        if (
            rows[row, LOW] == low
            and high >> _TOP_BYTE == _LONG_MARK
            and np.int64(rows[row, LENGTH] & _LENGTH_MASK) == length
            and _same_letters(table.letters, np.int64(high & _OFFSET_MASK), text, position, length)
        ):
            return row
        row = (row + 1) & (rows.shape[0] - 1)
    return -1 - row


@kernel
def has_room(length: int, table: WordTable) -> bool:
    """Whether one more word of `length` bytes may be inserted."""
    return (
        2 * (table.used[USED_ROWS] + 1) <= table.rows.shape[0]
        and table.used[USED_LETTERS] + length <= table.letters.shape[0]
    )


@kernel
def insert(text: np.ndarray, position: int, length: int, row: int, value: np.uint64, table: WordTable) -> None:
    """Put a word into the free `row` that `find_row` named; `has_room` must hold."""
    if length <= SHORT_LIMIT:
        low, high = _short_key(text, position, length)
    else:
        offset = table.used[USED_LETTERS]
        for i in range(length):
            table.letters[offset + i] = text[position + i]
        low, high = _hash_long(text, position, length), (_LONG_MARK << _TOP_BYTE) | np.uint64(offset)
        table.used[USED_LETTERS] += length
    table.rows[row, LOW] = low
    table.rows[row, HIGH] = high
    table.rows[row, VALUE] = value
    table.rows[row, LENGTH] = np.uint64(length)
    table.used[USED_ROWS] += 1


@kernel
def _copy_rows(old: np.ndarray, new: np.ndarray) -> None:
    last_row = new.shape[0] - 1
    for i in range(old.shape[0]):
        low, high = old[i, LOW], old[i, HIGH]
        if high != _ZERO:
            hashed = low if high >> _TOP_BYTE == _LONG_MARK else _hash_short(low, high)
            row = _home_row(hashed, new.shape[0])
            while new[row, HIGH] != _ZERO:
                row = (row + 1) & last_row
            for column in range(4):
                new[row, column] = old[i, column]


def grown(table: WordTable, length: int) -> WordTable:
    """The same words in a table that has room for one more word of `length` bytes."""
    rows, letters = table.rows, table.letters
    if 2 * (table.used[USED_ROWS] + 1) > len(rows):
        rows = np.zeros((2 * len(rows), 4), dtype=np.uint64)
        _copy_rows(table.rows, rows)
    if table.used[USED_LETTERS] + length > len(letters):
        letters = np.empty(2 * (len(letters) + length), dtype=np.uint8)
        letters[: len(table.letters)] = table.letters
    return WordTable(rows, letters, table.used)


@kernel
def _measure(table: WordTable) -> tuple[int, int]:
    """(words, bytes of all words)"""
    words, size = 0, 0
    for row in range(table.rows.shape[0]):
        if table.rows[row, HIGH] != _ZERO:
            words += 1
            size += np.int64(table.rows[row, LENGTH])
    return words, size


@kernel
def _unpack(table: WordTable, letters: np.ndarray, offsets: np.ndarray, values: np.ndarray) -> None:
    word, offset = 0, 0
    for row in range(table.rows.shape[0]):
        low, high = table.rows[row, LOW], table.rows[row, HIGH]
        if high == _ZERO:
            continue
        length = np.int64(table.rows[row, LENGTH])
        if high >> _TOP_BYTE == _LONG_MARK:
            first = np.int64(high & _OFFSET_MASK)
            for i in range(length):
                letters[offset + i] = table.letters[first + i]
        else:
            for i in range(length):
                half = low if i < 8 else high
                letters[offset + i] = np.uint8((half >> (_EIGHT * np.uint64(i & 7))) & np.uint64(255))
        values[word] = np.int64(table.rows[row, VALUE])
        offset += length
        word += 1
        offsets[word] = offset


def unpack(table: WordTable, padding: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All words of the table: (letters uint8 with `padding` more bytes, offsets int64[n + 1], values int64[n])."""
    words, size = _measure(table)
    letters = np.zeros(size + padding, dtype=np.uint8)
    offsets, values = np.zeros(words + 1, dtype=np.int64), np.empty(words, dtype=np.int64)
    _unpack(table, letters, offsets, values)
    return letters, offsets, values
