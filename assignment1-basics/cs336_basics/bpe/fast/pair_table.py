"""What the merging works on: the words laid out in cells, and the table of pairs, filled with the pairs of bytes.

All words lie in one array of *cells*, int32[:, 2] with the columns TOKEN and WORD: one cell for each byte, and a wall
between words. A row of the table, int64[:, 4], holds a pair's key plus 1 (0 in a free row), its exact count, and where
the list of its *occurrences*, the cells of its first byte, is in one long array.
"""

import numpy as np

from .bits import trailing_zeros
from .jit import kernel
from .pair_order import pair_key

TOKEN, WORD = range(2)
WALL = -1
KEY_PLUS_1, PAIR_COUNT, FIRST_OCCURRENCE, NUM_OCCURRENCES = range(4)
PAIRS, OCCURRENCES, HEAP, THRESHOLD = range(4)
"""Of the array `sizes`: pairs in the table, occurrences written, entries of the heap, least count of an entry."""
_MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


@kernel
def find_pair(pairs: np.ndarray, key: int) -> int:
    """The row of `key` in the hash table, or the free row where it belongs."""
    num_rows = pairs.shape[0]
    mixed = np.uint64(key) * _MIX_1
    mixed ^= mixed >> np.uint64(32)
    row = np.int64((mixed * _MIX_2) >> np.uint64(64 - trailing_zeros(np.uint64(num_rows))))
    while pairs[row, KEY_PLUS_1] != key + 1 and pairs[row, KEY_PLUS_1] != 0:
        row = (row + 1) & (num_rows - 1)
    return row


@kernel
def grown_pairs(pairs: np.ndarray) -> np.ndarray:
    larger = np.zeros((2 * pairs.shape[0], 4), dtype=np.int64)
    for old_row in range(pairs.shape[0]):
        if pairs[old_row, KEY_PLUS_1] != 0:
            row = find_pair(larger, pairs[old_row, KEY_PLUS_1] - 1)
            for column in range(4):
                larger[row, column] = pairs[old_row, column]
    return larger


@kernel
def fill_cells(offsets: np.ndarray, letters: np.ndarray, cells: np.ndarray, text: np.ndarray) -> None:
    """Lay out the words, a wall before the first and after each; text[i] is the byte of cell i."""
    cell = 0
    cells[cell, TOKEN] = WALL
    cells[cell, WORD] = 0
    for word in range(offsets.shape[0] - 1):
        for i in range(offsets[word], offsets[word + 1]):
            cell += 1
            cells[cell, TOKEN] = letters[i]
            cells[cell, WORD] = word
            text[cell] = letters[i]
        cell += 1
        cells[cell, TOKEN] = WALL
        cells[cell, WORD] = word
    for byte in range(256):
        text[cells.shape[0] + byte] = byte


@kernel
def count_byte_pairs(
    cells: np.ndarray, counts: np.ndarray, pairs: np.ndarray, occurrences: np.ndarray, sizes: np.ndarray
) -> None:
    """Enter every pair of bytes with its count and its occurrences, in order of position."""
    count_of = np.zeros(65536, dtype=np.int64)
    cursor = np.zeros(65536, dtype=np.int64)
    for cell in range(1, cells.shape[0] - 1):
        left, right = np.int64(cells[cell, TOKEN]), np.int64(cells[cell + 1, TOKEN])
        if left >= 0 and right >= 0:
            count_of[left << 8 | right] += counts[cells[cell, WORD]]
            cursor[left << 8 | right] += 1
    first = 0
    largest = 0
    for pair in range(65536):
        number = cursor[pair]
        cursor[pair] = first
        if number > 0:
            key = pair_key(pair >> 8, pair & 255)
            row = find_pair(pairs, key)
            pairs[row, KEY_PLUS_1] = key + 1
            pairs[row, PAIR_COUNT] = count_of[pair]
            pairs[row, FIRST_OCCURRENCE] = first
            pairs[row, NUM_OCCURRENCES] = number
            sizes[PAIRS] += 1
            largest = max(largest, count_of[pair])
        first += number
    for cell in range(1, cells.shape[0] - 1):
        left, right = np.int64(cells[cell, TOKEN]), np.int64(cells[cell + 1, TOKEN])
        if left >= 0 and right >= 0:
            occurrences[cursor[left << 8 | right]] = cell
            cursor[left << 8 | right] += 1
    sizes[OCCURRENCES] = first
    sizes[THRESHOLD] = largest + 1
