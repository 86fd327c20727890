"""How often each pre-token occurs in a file: threads with a table of their own, added up at the end."""

import os
import threading
from collections.abc import Callable

import numpy as np

from ..unicode_classes import class_table
from .blocks import BLOCK_BYTES, BlockReader
from .chunks import (
    CHUNK_BYTES,
    CHUNK_DONE,
    CHUNK_MALFORMED,
    PADDING,
    Workspace,
    new_workspace,
    split_chunk,
)
from .jit import kernel
from .specials import find_special_tokens, longest_first, pack_special_tokens, replacement_is_special
from .utf8 import mended_array
from .word_table import (
    SHORT_LIMIT,
    VALUE,
    WordTable,
    find_long_row,
    find_short_row,
    grown,
    has_room,
    insert,
    new_word_table,
    unpack,
)

DONE, MALFORMED, TOO_LONG, TABLE_FULL = range(4)
POSITION, WORD, WALL = range(3)
_ONE = np.uint64(1)


@kernel
def _count_known(
    text: np.ndarray,
    begin: int,
    first: int,
    last: int,
    next_wall: int,
    wall_at: np.ndarray,
    work: Workspace,
    table: WordTable,
) -> tuple[int, int, int]:
    """Count words from `first` on, up to the first one that is not in the table: (its index, its free row, wall)."""
    wall_offset = wall_at[next_wall] - begin if next_wall < wall_at.shape[0] else -1
    for i in range(first, last):
        start = np.int64(work.starts[i])
        if start == wall_offset:  # a special token is no word
            next_wall += 1
            wall_offset = wall_at[next_wall] - begin if next_wall < wall_at.shape[0] else -1
            continue
        length = np.int64(work.starts[i + 1]) - start
        if length <= SHORT_LIMIT:
            row = find_short_row(text, begin + start, length, table.rows)
        else:
            row = find_long_row(text, begin + start, length, table)
        if row < 0:
            return i, -1 - row, next_wall
        table.rows[row, VALUE] += _ONE
    return last, 0, next_wall


@kernel
def _count_block(
    text: np.ndarray,
    end: int,
    chunk_bytes: int,
    class_table: np.ndarray,
    wall_at: np.ndarray,
    wall_length: np.ndarray,
    work: Workspace,
    table: WordTable,
    progress: np.ndarray,
) -> int:
    """Count the words of text[:end] from progress on, until done or until something must grow; then call again.

    progress: int64[3]: the chunk's begin, the next word in it, and the index of the first special token from there.
    """
    while progress[POSITION] < end:
        begin = progress[POSITION]
        status = split_chunk(text, begin, end, chunk_bytes, class_table, wall_at, wall_length, progress[WALL], work)
        if status != CHUNK_DONE:
            return MALFORMED if status == CHUNK_MALFORMED else TOO_LONG
        count = work.extent[1]
        word = progress[WORD]
        wall = progress[WALL]
        while wall < wall_at.shape[0] and wall_at[wall] < begin + work.starts[word]:
            wall += 1
        while True:
            word, row, wall = _count_known(text, begin, word, count, wall, wall_at, work, table)
            if word == count:
                break
            start = np.int64(work.starts[word])
            length = np.int64(work.starts[word + 1]) - start
            if not has_room(length, table):
                progress[WORD] = word
                return TABLE_FULL
            insert(text, begin + start, length, row, _ONE, table)
            word += 1
        progress[POSITION] = work.extent[0]
        progress[WORD] = 0
        progress[WALL] = work.extent[2]
    return DONE


@kernel
def _add_words(letters: np.ndarray, offsets: np.ndarray, counts: np.ndarray, first: int, table: WordTable) -> int:
    """Add words with their counts to a table, from `first` on; returns the first one there was no room for."""
    for i in range(first, counts.shape[0]):
        length = offsets[i + 1] - offsets[i]
        if length <= SHORT_LIMIT:
            row = find_short_row(letters, offsets[i], length, table.rows)
        else:
            row = find_long_row(letters, offsets[i], length, table)
        if row >= 0:
            table.rows[row, VALUE] += np.uint64(counts[i])
        elif has_room(length, table):
            insert(letters, offsets[i], length, -1 - row, np.uint64(counts[i]), table)
        else:
            return i
    return counts.shape[0]


class WordCounter:
    """Counts the pre-tokens of texts; one for each thread.

    Args:
        special_tokens: hard borders that are not counted, as `longest_first` orders them.
        chunk_bytes: bytes handled at a time; results do not depend on it.
    """

    def __init__(self, special_tokens: list[bytes], class_table: np.ndarray, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.num_malformed = 0
        """How many malformed UTF-8 sequences were replaced so far."""
        self._specials = pack_special_tokens(special_tokens)
        self._class_table = class_table
        self._chunk_bytes = chunk_bytes
        self._table = new_word_table()
        self._work = new_workspace(4 * chunk_bytes)
        self._mend_first = replacement_is_special(special_tokens)

    def add(self, text: np.ndarray, end: int) -> None:
        """Count text[:end], which begins and ends at a safe cut or an end of the whole text.

        Args:
            text: uint8, readable for `PADDING` bytes beyond `end`.
        """
        if self._mend_first:
            text, end, num_malformed = mended_array(text[:end])
            self.num_malformed += num_malformed
        walls = find_special_tokens(text, end, self._specials)
        progress = np.zeros(3, dtype=np.int64)
        while True:
            status = _count_block(
                text,
                end,
                self._chunk_bytes,
                self._class_table,
                walls.position,
                walls.length,
                self._work,
                self._table,
                progress,
            )
            if status == DONE:
                return
            if status == MALFORMED:
                # The chunks before this one are counted; what is left is mended as a whole.
                rest, rest_end, num_malformed = mended_array(text[progress[POSITION] : end])
                self.num_malformed += num_malformed
                self.add(rest, rest_end)
                return
            if status == TOO_LONG:
                self._work = new_workspace(int(self._work.extent[0] - progress[POSITION]) + 64)
            else:
                starts = self._work.starts[progress[WORD] : progress[WORD] + 2]
                self._table = grown(self._table, int(starts[1]) - int(starts[0]))

    def add_counts_of(self, other: "WordCounter") -> None:
        """Add the counts of another counter to this one's."""
        self.num_malformed += other.num_malformed
        letters, offsets, counts = unpack(other._table, PADDING)
        done = 0
        while (done := _add_words(letters, offsets, counts, done, self._table)) < len(counts):
            self._table = grown(self._table, int(offsets[done + 1] - offsets[done]))

    def words(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(letters uint8 with `PADDING` more bytes, offsets int64[n + 1], counts int64[n]) of the n words."""
        return unpack(self._table, PADDING)


def count_file(
    path: str | os.PathLike,
    special_tokens: list[str],
    num_threads: int,
    *,
    block_bytes: int = BLOCK_BYTES,
    chunk_bytes: int = CHUNK_BYTES,
    on_read: Callable[[int], object] | None = None,
) -> WordCounter:
    """Count the pre-tokens of a file in memory that does not grow with the file.

    Args:
        path: a text, read as bytes; malformed UTF-8 counts as U+FFFD.
        special_tokens: hard borders that are not counted.
        num_threads: how many threads count.
        block_bytes, chunk_bytes: sizes that results do not depend on (tests use tiny ones).
        on_read: called with the number of bytes after each block, from any thread.
    """
    tokens = longest_first(special_tokens)
    classes = class_table()
    size = os.path.getsize(path)
    num_threads = max(1, min(num_threads, -(-size // block_bytes)))
    counters = [WordCounter(tokens, classes, chunk_bytes) for _ in range(num_threads)]
    failures: list[BaseException] = []
    with open(path, "rb", buffering=0) as file:
        reader = BlockReader(file, tokens, min(block_bytes, size + 1), on_read)

        def work(counter: WordCounter) -> None:
            try:
                buffer, length = reader.next_block(reader.new_buffer())
                while length:
                    counter.add(buffer, length)
                    buffer, length = reader.next_block(buffer)
            except BaseException as failure:
                failures.append(failure)
                reader.stop()

        helpers = [threading.Thread(target=work, args=(counter,)) for counter in counters[1:]]
        try:
            for helper in helpers:
                helper.start()
            work(counters[0])
        finally:
            reader.stop()
            for helper in helpers:
                if helper.ident is not None:  # it was started
                    helper.join()
    if failures:
        raise failures[0]
    for other in counters[1:]:
        counters[0].add_counts_of(other)
    return counters[0]
