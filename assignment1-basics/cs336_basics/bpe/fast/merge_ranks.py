"""Encoding one pre-token: apply the merge of lowest rank, the leftmost first, until none applies.

Inside, tokens are *symbols*: 0 to 255 are the bytes, then come the different byte strings that merges name, in order.
So it does not matter which ids a vocabulary gives to what, nor whether two merges make the same bytes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .bits import trailing_zeros
from .jit import kernel

KEY_PLUS_1, RANK = range(2)
NO_RANK = np.iinfo(np.int32).max
SCAN_UP_TO = 48
"""Bytes up to which scanning for the lowest rank is quicker than a heap."""

_MERGED_AWAY = -1
_MIX = np.uint64(0x9E3779B97F4A7C15)


class MergeRanks(NamedTuple):
    """Which pairs of symbols merge."""

    rows: np.ndarray
    """int64[a power of two, 2]: a hash table from pairs (KEY_PLUS_1; 0 in a free row) to RANK."""
    merged: np.ndarray
    """int32[merges]: the symbol that the merge of a rank makes."""
    token_id: np.ndarray
    """uint32[symbols]: the vocabulary's id of a symbol."""


@kernel
def _find_row(rows: np.ndarray, left: int, right: int) -> int:
    """The row of a pair, or the free row where it belongs."""
    key_plus_1 = (left << 32 | right) + 1
    num_rows = rows.shape[0]
    row = np.int64((np.uint64(key_plus_1) * _MIX) >> np.uint64(64 - trailing_zeros(np.uint64(num_rows))))
    while rows[row, KEY_PLUS_1] != key_plus_1 and rows[row, KEY_PLUS_1] != 0:
        row = (row + 1) & (num_rows - 1)
    return row


@kernel
def _rank(rows: np.ndarray, left: int, right: int) -> int:
    row = _find_row(rows, left, right)
    return rows[row, RANK] if rows[row, KEY_PLUS_1] != 0 else NO_RANK


@kernel
def _enter(pairs: np.ndarray, rows: np.ndarray) -> None:
    for rank in range(pairs.shape[0]):
        left, right = np.int64(pairs[rank, 0]), np.int64(pairs[rank, 1])
        row = _find_row(rows, left, right)
        if rows[row, KEY_PLUS_1] == 0:  # a pair named twice keeps its first rank
            rows[row, KEY_PLUS_1] = (left << 32 | right) + 1
            rows[row, RANK] = rank


def build_merge_ranks(merges: Sequence[tuple[bytes, bytes]], id_of: dict[bytes, int]) -> MergeRanks:
    """The tables for `merges`, where `id_of` gives the id of every byte string they name and of the 256 bytes."""
    symbol_of = {bytes([byte]): byte for byte in range(256)}

    def symbol(token: bytes) -> int:
        return symbol_of.setdefault(token, len(symbol_of))

    triples = [(symbol(left), symbol(right), symbol(left + right)) for left, right in merges]
    table = np.array(triples, dtype=np.int32).reshape(-1, 3)
    pairs, merged = table[:, :2].copy(), table[:, 2].copy()
    rows = np.zeros((1 << (4 * len(merges) + 16).bit_length(), 2), dtype=np.int64)
    _enter(pairs, rows)
    token_id = np.array([id_of[token] for token in symbol_of], dtype=np.uint32)
    return MergeRanks(rows, merged, token_id)


@kernel
def _merge_by_scanning(symbols: np.ndarray, ranks: MergeRanks) -> int:
    """Merge in place; returns how many symbols are left."""
    length = symbols.shape[0]
    rank_at = np.empty(length, dtype=np.int64)  # of the pair that begins there
    for i in range(length - 1):
        rank_at[i] = _rank(ranks.rows, symbols[i], symbols[i + 1])
    while length > 1:
        best = 0
        for i in range(1, length - 1):
            if rank_at[i] < rank_at[best]:
                best = i
        if rank_at[best] == NO_RANK:
            break
        symbols[best] = ranks.merged[rank_at[best]]
        length -= 1
        for i in range(best + 1, length):
            symbols[i] = symbols[i + 1]
            rank_at[i] = rank_at[i + 1]
        if best < length - 1:
            rank_at[best] = _rank(ranks.rows, symbols[best], symbols[best + 1])
        if best > 0:
            rank_at[best - 1] = _rank(ranks.rows, symbols[best - 1], symbols[best])
    return length


@kernel
def _push(heap: np.ndarray, size: int, entry: int) -> int:
    hole = size
    while hole > 0 and heap[(hole - 1) >> 1] > entry:
        heap[hole] = heap[(hole - 1) >> 1]
        hole = (hole - 1) >> 1
    heap[hole] = entry
    return size + 1


@kernel
def _pop(heap: np.ndarray, size: int) -> int:
    """Drop the least entry, heap[0]."""
    size -= 1
    entry = heap[size]
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if entry <= heap[child]:
            break
        heap[hole] = heap[child]
        hole = child
    heap[hole] = entry
    return size


@kernel
def _merge_by_heap(symbols: np.ndarray, ranks: MergeRanks) -> int:
    """The same in n log n steps: a doubly linked list, and a heap of rank << 32 | position."""
    length = symbols.shape[0]
    following, preceding = np.empty(length, dtype=np.int32), np.empty(length, dtype=np.int32)
    heap = np.empty(3 * length, dtype=np.int64)  # one for each pair, and two for each merge
    size = 0
    for i in range(length):
        following[i], preceding[i] = i + 1, i - 1
        if i + 1 < length:
            rank = _rank(ranks.rows, symbols[i], symbols[i + 1])
            if rank != NO_RANK:
                size = _push(heap, size, rank << 32 | i)
    while size > 0:
        rank, i = heap[0] >> 32, heap[0] & 0xFFFFFFFF
        size = _pop(heap, size)
        j = np.int64(following[i])
        if symbols[i] == _MERGED_AWAY or j >= length or _rank(ranks.rows, symbols[i], symbols[j]) != rank:
            continue  # one of the two has been merged with another since
        symbols[i], symbols[j] = ranks.merged[rank], _MERGED_AWAY
        after, before = np.int64(following[j]), np.int64(preceding[i])
        following[i] = after
        if after < length:
            preceding[after] = i
            rank = _rank(ranks.rows, symbols[i], symbols[after])
            if rank != NO_RANK:
                size = _push(heap, size, rank << 32 | i)
        if before >= 0:
            rank = _rank(ranks.rows, symbols[before], symbols[i])
            if rank != NO_RANK:
                size = _push(heap, size, rank << 32 | before)
    count = 0
    for i in range(length):
        if symbols[i] != _MERGED_AWAY:
            symbols[count] = symbols[i]
            count += 1
    return count


@kernel
def encode_word(text: np.ndarray, position: int, length: int, ranks: MergeRanks, ids: np.ndarray, first: int) -> int:
    """Write the ids of the pre-token text[position:position + length] to ids[first:]; returns how many there are."""
    symbols = np.empty(length, dtype=np.int64)
    for i in range(length):
        symbols[i] = text[position + i]
    count = _merge_by_scanning(symbols, ranks) if length <= SCAN_UP_TO else _merge_by_heap(symbols, ranks)
    for i in range(count):
        ids[first + i] = ranks.token_id[symbols[i]]
    return count
