"""The merges: from the counted words to the list of merged pairs.

The words lie in cells, and every pair of neighboring tokens has an exact count and a list of occurrences, as
`pair_table` says. A token of several bytes is written to its first and its last cell, so that its neighbors on both
sides can be read off, and its length leads from one to the other.

A merge of (a, b) walks that list only. It changes the counts of the neighboring pairs, (x, a) and (b, y),
and gives rise to new ones, (x, ab) and (ab, y), whose lists it writes. Positions are never taken out of the old
lists: a position that no longer holds the pair is skipped when its turn comes.

The best pair comes from a heap that is lazy in two ways. Counts of pairs already in it only fall, so an entry is
compared with the true count when it comes up, and put back with that one. And only pairs of at least
`threshold` occurrences are in it; when it runs empty, the threshold falls to an eighth and the table is searched.
"""

from typing import NamedTuple

import numpy as np

from cs336_basics.command_line import UsageError

from .jit import kernel
from .pair_order import (
    COUNT,
    KEY,
    Tokens,
    grown_heap,
    heap_push,
    heap_sift,
    key_left,
    key_right,
    pair_key,
    set_token,
)
from .pair_table import (
    FIRST_OCCURRENCE,
    HEAP,
    KEY_PLUS_1,
    NUM_OCCURRENCES,
    OCCURRENCES,
    PAIR_COUNT,
    PAIRS,
    THRESHOLD,
    TOKEN,
    WORD,
    count_byte_pairs,
    fill_cells,
    find_pair,
    grown_pairs,
)

COVERED = -2
"""What stands in the cells between a token's first and its last one."""
MERGES_DONE, STOP = range(2)


class Neighbors(NamedTuple):
    """What one merge does to the pairs on one side, left or right, by neighboring token."""

    gained: np.ndarray
    """int64: count of the new pair with this neighbor."""
    lost: np.ndarray
    """int64: what the old pair with this neighbor loses."""
    seen: np.ndarray
    """int32: how many of the records below name this neighbor."""
    cursor: np.ndarray
    """int32: where the next occurrence of the new pair is written; -1 if the new pair has none."""


@kernel
def _refill_heap(pairs: np.ndarray, heap: np.ndarray, sizes: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Lower the threshold until there are pairs above it, or until it is 1; returns the heap, maybe a larger one."""
    while sizes[HEAP] == 0 and sizes[THRESHOLD] > 1:
        threshold = max(1, sizes[THRESHOLD] // 8)
        sizes[THRESHOLD] = threshold
        size = 0
        for row in range(pairs.shape[0]):
            size += pairs[row, PAIR_COUNT] >= threshold
        if size > heap.shape[0]:
            heap = np.empty((2 * size, 2), dtype=np.int64)
        size = 0
        for row in range(pairs.shape[0]):
            if pairs[row, PAIR_COUNT] >= threshold:
                heap[size, COUNT] = pairs[row, PAIR_COUNT]
                heap[size, KEY] = pairs[row, KEY_PLUS_1] - 1
                size += 1
        for i in range(size // 2 - 1, -1, -1):
            heap_sift(heap, i, size, heap[i, COUNT], heap[i, KEY], tokens)
        sizes[HEAP] = size
    return heap


@kernel
def _pop_best(pairs: np.ndarray, heap: np.ndarray, sizes: np.ndarray, tokens: Tokens) -> int:
    """Take the best pair off the heap: its row in `pairs`, or -1 if the heap runs empty."""
    while sizes[HEAP] > 0:
        key = heap[0, KEY]
        row = find_pair(pairs, key)
        count = pairs[row, PAIR_COUNT]
        if heap[0, COUNT] != count and count >= sizes[THRESHOLD]:
            heap_sift(heap, 0, sizes[HEAP], count, key, tokens)  # it has fallen: back to its place
            continue
        is_current = heap[0, COUNT] == count
        sizes[HEAP] -= 1
        last = sizes[HEAP]
        if last > 0:
            heap_sift(heap, 0, last, heap[last, COUNT], heap[last, KEY], tokens)
        if is_current:
            return row
    return -1


@kernel
def _merge_occurrences(
    left: int,
    right: int,
    merged: int,
    places: np.ndarray,
    counts: np.ndarray,
    cells: np.ndarray,
    tokens: Tokens,
    before: Neighbors,
    after: Neighbors,
    before_records: np.ndarray,
    after_records: np.ndarray,
) -> tuple[int, int, int]:
    """Write `merged` wherever (left, right) stands.

    Adds up by neighbor what the pairs around lose and gain, and records each new pair's (neighbor, position) in order.
    Returns the numbers of records before and after, and a place where the merged token stands.
    """
    left_length, right_length = tokens.length[left], tokens.length[right]
    num_before, num_after, merged_at = 0, 0, -1
    for i in range(places.shape[0]):
        start = np.int64(places[i])
        middle = start + left_length
        if cells[start, TOKEN] != left or cells[middle, TOKEN] != right:
            continue
        merged_at = start
        end = middle + right_length
        count = counts[cells[start, WORD]]
        x, y = np.int64(cells[start - 1, TOKEN]), np.int64(cells[end, TOKEN])
        cells[middle - 1, TOKEN] = COVERED
        cells[middle, TOKEN] = COVERED
        cells[start, TOKEN] = merged
        cells[end - 1, TOKEN] = merged
        if x >= 0:
            if x == merged:
                # The pair before was merged a moment ago, and recorded (merged, left) as new: it is none any more.
                after.gained[left] -= count
                x_length = left_length + right_length
            else:
                before.lost[x] += count
                x_length = tokens.length[x]
            before.gained[x] += count
            before.seen[x] += 1
            before_records[num_before, 0] = x
            before_records[num_before, 1] = start - x_length
            num_before += 1
        if y >= 0:
            after.lost[y] += count
            after.gained[y] += count
            after.seen[y] += 1
            after_records[num_after, 0] = y
            after_records[num_after, 1] = start
            num_after += 1
    return num_before, num_after, merged_at


@kernel
def _settle(
    is_before: bool,
    replaced: int,
    merged: int,
    merged_key: int,
    neighbors: Neighbors,
    records: np.ndarray,
    pairs: np.ndarray,
    occurrences: np.ndarray,
    heap: np.ndarray,
    sizes: np.ndarray,
    tokens: Tokens,
) -> None:
    """Carry one side's losses and gains over to the pairs, write the new pairs' occurrences, clear the sums."""
    for i in range(records.shape[0]):
        x = np.int64(records[i, 0])
        if neighbors.seen[x] > 0:  # its first record
            old_key = pair_key(x, replaced) if is_before else pair_key(replaced, x)
            if neighbors.lost[x] > 0 and old_key != merged_key:
                pairs[find_pair(pairs, old_key), PAIR_COUNT] -= neighbors.lost[x]
            neighbors.cursor[x] = -1
            gained = neighbors.gained[x]
            if gained > 0:
                key = pair_key(x, merged) if is_before else pair_key(merged, x)
                row = find_pair(pairs, key)
                pairs[row, KEY_PLUS_1] = key + 1
                pairs[row, PAIR_COUNT] = gained
                pairs[row, FIRST_OCCURRENCE] = sizes[OCCURRENCES]
                pairs[row, NUM_OCCURRENCES] = neighbors.seen[x]
                sizes[PAIRS] += 1
                if gained >= sizes[THRESHOLD]:
                    heap_push(heap, sizes[HEAP], gained, key, tokens)
                    sizes[HEAP] += 1
                neighbors.cursor[x] = sizes[OCCURRENCES]
                sizes[OCCURRENCES] += neighbors.seen[x]
            neighbors.seen[x] = 0
            neighbors.gained[x] = 0
            neighbors.lost[x] = 0
        if neighbors.cursor[x] >= 0:
            occurrences[neighbors.cursor[x]] = records[i, 1]
            neighbors.cursor[x] += 1


@kernel
def _merge_all(
    offsets: np.ndarray,
    letters: np.ndarray,
    counts: np.ndarray,
    cells: np.ndarray,
    tokens: Tokens,
    before: Neighbors,
    after: Neighbors,
    occurrences: np.ndarray,
    merges: np.ndarray,
    progress: np.ndarray,
) -> int:
    """Fill `merges` (int32[:, 2], pairs of ids); returns how many there are: fewer if no pair is left."""
    fill_cells(offsets, letters, cells, tokens.text)
    for byte in range(256):
        set_token(byte, cells.shape[0] + byte, 1, tokens)
    pairs = np.zeros((1 << 17, 4), dtype=np.int64)
    heap = np.empty((1 << 14, 2), dtype=np.int64)
    before_records = np.empty((1 << 12, 2), dtype=np.int32)
    after_records = np.empty((1 << 12, 2), dtype=np.int32)
    sizes = np.zeros(4, dtype=np.int64)
    count_byte_pairs(cells, counts, pairs, occurrences, sizes)
    for k in range(merges.shape[0]):
        row = -1
        while row < 0:
            heap = _refill_heap(pairs, heap, sizes, tokens)
            if sizes[HEAP] == 0 or progress[STOP] != 0:
                return k
            row = _pop_best(pairs, heap, sizes, tokens)
        key = pairs[row, KEY_PLUS_1] - 1
        left, right, merged = key_left(key), key_right(key), 256 + k
        merges[k, 0], merges[k, 1] = left, right
        first, number = pairs[row, FIRST_OCCURRENCE], pairs[row, NUM_OCCURRENCES]
        pairs[row, PAIR_COUNT] = 0
        if number > before_records.shape[0]:
            before_records = np.empty((2 * number, 2), dtype=np.int32)
            after_records = np.empty((2 * number, 2), dtype=np.int32)
        num_before, num_after, merged_at = _merge_occurrences(
            left,
            right,
            merged,
            occurrences[first : first + number],
            counts,
            cells,
            tokens,
            before,
            after,
            before_records,
            after_records,
        )
        set_token(merged, merged_at, tokens.length[left] + tokens.length[right], tokens)
        while 2 * (sizes[PAIRS] + num_before + num_after) > pairs.shape[0]:
            pairs = grown_pairs(pairs)
        if sizes[HEAP] + num_before + num_after > heap.shape[0]:
            heap = grown_heap(heap, sizes[HEAP], 2 * (sizes[HEAP] + num_before + num_after))
        _settle(True, left, merged, key, before, before_records[:num_before], pairs, occurrences, heap, sizes, tokens)
        _settle(False, right, merged, key, after, after_records[:num_after], pairs, occurrences, heap, sizes, tokens)
        progress[MERGES_DONE] = k + 1
    return merges.shape[0]


def _new_neighbors(num_tokens: int) -> Neighbors:
    return Neighbors(
        gained=np.zeros(num_tokens, dtype=np.int64),
        lost=np.zeros(num_tokens, dtype=np.int64),
        seen=np.zeros(num_tokens, dtype=np.int32),
        cursor=np.zeros(num_tokens, dtype=np.int32),
    )


def merge_words(
    letters: np.ndarray, offsets: np.ndarray, counts: np.ndarray, num_merges: int, progress: np.ndarray
) -> list[tuple[bytes, bytes]]:
    """The merges of the given words, at most `num_merges`, in order, as pairs of byte strings.

    Args:
        letters: uint8, the words' bytes one after another.
        offsets: int64[n + 1]: word k is letters[offsets[k]:offsets[k + 1]].
        counts: int64[n]: how often each word occurs.
        num_merges: the most merges wanted; fewer come back when no pair is left.
        progress: int64[2]: the kernel writes the merges done to [MERGES_DONE] and ends early once [STOP] is not 0;
            another thread may read and write them meanwhile.

    Raises:
        UsageError: if the different words have more than 2^31 bytes together.
    """
    num_cells = int(offsets[-1]) + len(counts) + 1
    if 3 * num_cells >= 2**31:
        raise UsageError(
            f"the text's different words have {num_cells} bytes together; at most {2**31 // 3} are allowed"
        )
    num_merges = min(num_merges, int(offsets[-1]))  # each one removes a token from some word
    num_tokens = 256 + num_merges
    tokens = Tokens(
        text=np.zeros(num_cells + 256, dtype=np.uint8),
        position=np.zeros(num_tokens, dtype=np.int64),
        length=np.ones(num_tokens, dtype=np.int64),
        prefix=np.zeros(num_tokens, dtype=np.uint64),
    )
    merges = np.empty((num_merges, 2), dtype=np.int32)
    done = _merge_all(
        offsets,
        letters,
        counts,
        np.empty((num_cells, 2), dtype=np.int32),
        tokens,
        _new_neighbors(num_tokens),
        _new_neighbors(num_tokens),
        # At most one for each two neighboring bytes, and two more for each token that a merge removes.
        np.empty(3 * num_cells, dtype=np.int32),
        merges,
        progress,
    )
    text = tokens.text.tobytes()
    spans = zip(tokens.position[: 256 + done].tolist(), tokens.length[: 256 + done].tolist(), strict=True)
    as_bytes = [text[position : position + length] for position, length in spans]
    return [(as_bytes[left], as_bytes[right]) for left, right in merges[:done].tolist()]
