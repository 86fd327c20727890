"""`FastEncoder`: text to ids, the pre-tokens that were met before by one look into a table.

The table is that of `word_table`: a pre-token's row holds its ids, up to two of them in the row itself, more in the
array `spilled`. It is bounded: when it is full it is emptied, so memory does not grow with the text.
"""

from collections.abc import Sequence

import numpy as np

from cs336_basics.command_line import UsageError

from ..unicode_classes import class_table
from .blocks import BLOCK_BYTES, last_safe_cut
from .chunks import CHUNK_BYTES, CHUNK_DONE, CHUNK_MALFORMED, PADDING, Workspace, new_workspace, split_chunk
from .jit import kernel
from .merge_ranks import MergeRanks, build_merge_ranks, encode_word
from .specials import find_special_tokens, longest_first, pack_special_tokens, replacement_is_special
from .utf8 import mended_array
from .word_table import (
    LENGTH,
    SHORT_LIMIT,
    VALUE,
    WordTable,
    find_long_row,
    find_short_row,
    grown,
    has_room,
    insert,
    new_word_table,
)

DONE, MALFORMED, TOO_LONG, TABLE_FULL = range(4)
POSITION, WORD, WALL, WRITTEN, SPILLED = range(5)

CACHED_WORDS = 1 << 18
"""Pre-tokens that the cache holds before it is emptied (16 MB of rows)."""
CACHED_LETTERS = 8 << 20
"""Bytes of pre-tokens of more than 15 bytes that it holds."""
SPILL_IDS = 1 << 21
"""Ids that it holds outside of rows."""
LONGEST_CACHED = 1024
"""Bytes; a longer pre-token is encoded anew each time."""

_32, _LOW_HALF = np.uint64(32), np.uint64(0xFFFFFFFF)


@kernel
def _write_known(
    text: np.ndarray,
    begin: int,
    first: int,
    last: int,
    next_wall: int,
    wall_at: np.ndarray,
    wall_id: np.ndarray,
    work: Workspace,
    table: WordTable,
    spilled: np.ndarray,
    ids: np.ndarray,
    written: int,
) -> tuple[int, int, int, int]:
    """Write the ids of words from `first` on, up to the first one that is not in the table.

    Returns its index, its free row, the next special token, and the number of ids written so far.
    """
    wall_offset = wall_at[next_wall] - begin if next_wall < wall_at.shape[0] else -1
    for i in range(first, last):
        start = np.int64(work.starts[i])
        if start == wall_offset:
            ids[written] = wall_id[next_wall]
            written += 1
            next_wall += 1
            wall_offset = wall_at[next_wall] - begin if next_wall < wall_at.shape[0] else -1
            continue
        length = np.int64(work.starts[i + 1]) - start
        if length <= SHORT_LIMIT:
            row = find_short_row(text, begin + start, length, table.rows)
        else:
            row = find_long_row(text, begin + start, length, table)
        if row < 0:
            return i, -1 - row, next_wall, written
        value = table.rows[row, VALUE]
        count = np.int64(table.rows[row, LENGTH] >> _32)
        if count <= 2:
            ids[written] = value & _LOW_HALF
            ids[written + 1] = value >> _32  # written over by the next id if there is only one
        else:
            for k in range(count):
                ids[written + k] = spilled[np.int64(value) + k]
        written += count
    return last, 0, next_wall, written


@kernel
def _remember(
    text: np.ndarray,
    position: int,
    length: int,
    row: int,
    ids: np.ndarray,
    first: int,
    count: int,
    table: WordTable,
    spilled: np.ndarray,
    progress: np.ndarray,
) -> None:
    """Put a word and its ids, ids[first:first + count], into the free `row`."""
    if count <= 2:
        value = np.uint64(ids[first])
        if count == 2:
            value |= np.uint64(ids[first + 1]) << _32
    else:
        value = np.uint64(progress[SPILLED])
        for k in range(count):
            spilled[progress[SPILLED] + k] = ids[first + k]
        progress[SPILLED] += count
    insert(text, position, length, row, value, table)
    table.rows[row, LENGTH] |= np.uint64(count) << _32


@kernel
def _encode_block(
    text: np.ndarray,
    end: int,
    chunk_bytes: int,
    class_table: np.ndarray,
    wall_at: np.ndarray,
    wall_length: np.ndarray,
    wall_id: np.ndarray,
    ranks: MergeRanks,
    work: Workspace,
    table: WordTable,
    spilled: np.ndarray,
    ids: np.ndarray,
    progress: np.ndarray,
) -> int:
    """Write the ids of text[:end] from `progress` on, until done or until something must grow; then call again.

    progress: int64[5]: the chunk's begin, the next word in it, the index of the first special token from there, the
    number of ids written, the number of ids in `spilled`.
    """
    while progress[POSITION] < end:
        begin = progress[POSITION]
        status = split_chunk(text, begin, end, chunk_bytes, class_table, wall_at, wall_length, progress[WALL], work)
        if status != CHUNK_DONE:
            return MALFORMED if status == CHUNK_MALFORMED else TOO_LONG
        num_words = work.extent[1]
        word, wall, written = progress[WORD], progress[WALL], progress[WRITTEN]
        while wall < wall_at.shape[0] and wall_at[wall] < begin + work.starts[word]:
            wall += 1
        while True:
            word, row, wall, written = _write_known(
                text, begin, word, num_words, wall, wall_at, wall_id, work, table, spilled, ids, written
            )
            if word == num_words:
                break
            position = begin + np.int64(work.starts[word])
            length = begin + np.int64(work.starts[word + 1]) - position
            fits = length <= LONGEST_CACHED
            if fits and not (has_room(length, table) and progress[SPILLED] + length <= spilled.shape[0]):
                progress[WORD] = word
                progress[WRITTEN] = written
                return TABLE_FULL
            count = encode_word(text, position, length, ranks, ids, written)
            if fits:
                _remember(text, position, length, row, ids, written, count, table, spilled, progress)
            written += count
            word += 1
        progress[POSITION] = work.extent[0]
        progress[WORD] = 0
        progress[WALL] = work.extent[2]
        progress[WRITTEN] = written
    return DONE


class FastEncoder:
    """Encodes with the merges of a vocabulary; the ids are those of the plain path.

    One encoder serves one thread at a time; `clone` makes one for another thread. The kernels run without the GIL, so
    threads run side by side. An encoder that an interrupt stopped midway is of no more use: its tables may not fit.

    A call costs some 15 microseconds whatever it is given, so below about 150 characters the plain path with a filled
    cache is quicker (10 characters: 4 microseconds against 20; 1,600: 320 against 25). In a fresh process, loading
    numba and the kernels takes about 0.5 s of CPU time, in which plain Python encodes 2 to 4 MB of text.

    Args:
        vocab: id -> bytes; all 256 bytes, everything the merges name, and the special tokens. Of several ids with the
            same bytes, text gets the lowest, a special token the highest.
        merges: pairs of byte strings, the earliest first.
        special_tokens: texts that become one id wherever they stand; where several fit, the longest does.
        block_bytes, chunk_bytes, cached_words: sizes that results do not depend on.

    Attributes:
        num_malformed: how many malformed UTF-8 sequences were read as U+FFFD so far.

    Raises:
        UsageError: a byte, a special token or the bytes of a merge are missing from the vocabulary.
    """

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: Sequence[tuple[bytes, bytes]],
        special_tokens: Sequence[str] = (),
        *,
        block_bytes: int = BLOCK_BYTES,
        chunk_bytes: int = CHUNK_BYTES,
        cached_words: int = CACHED_WORDS,
    ) -> None:
        ids_in_order = sorted(vocab)
        highest_id_of = {vocab[token_id]: token_id for token_id in ids_in_order}
        id_of = {vocab[token_id]: token_id for token_id in reversed(ids_in_order)}
        tokens = longest_first(list(special_tokens))
        try:
            self._ranks = build_merge_ranks(merges, id_of)
            self._special_ids = np.array([highest_id_of[token] for token in tokens], dtype=np.uint32)
        except KeyError as error:
            raise UsageError(f"the vocabulary has no token {error.args[0]!r}, which encoding needs") from None
        self._specials = pack_special_tokens(tokens)
        self._special_tokens = tokens
        self._mend_first = replacement_is_special(tokens)
        self._class_table = class_table()
        self._block_bytes = block_bytes
        self._chunk_bytes = chunk_bytes
        self._cached_words = cached_words
        self._set_up_caches()

    def _set_up_caches(self) -> None:
        self.num_malformed = 0
        self._work = new_workspace(4 * self._chunk_bytes)
        self._spilled = np.empty(SPILL_IDS, dtype=np.uint32)
        self._num_spilled = 0
        self._table = new_word_table()
        # Kept from call to call: fresh memory costs a page fault for every 4 KB.
        self._text = np.empty(0, dtype=np.uint8)
        self._ids = np.empty(0, dtype=np.uint32)

    def clone(self) -> "FastEncoder":
        """Another encoder with the same vocabulary and empty caches, for another thread."""
        other = object.__new__(FastEncoder)
        other.__dict__.update(self.__dict__)
        other._set_up_caches()
        return other

    def encode(self, data: bytes | bytearray | memoryview | np.ndarray) -> np.ndarray:
        """The ids of a whole text, special tokens included.

        Args:
            data: UTF-8, bytes or uint8; each malformed sequence counts as U+FFFD.

        Returns:
            uint32 `(num_tokens,)`.
        """
        source = np.frombuffer(data, dtype=np.uint8)
        result = np.empty(len(source) // 2 + 1, dtype=np.uint32)
        num_ids = 0
        begin = 0
        while begin < len(source):
            end = self._block_end(source, begin)
            size = end - begin
            if len(self._text) < size + PADDING:
                self._text = np.empty(size + PADDING, dtype=np.uint8)
            self._text[:size] = source[begin:end]
            self._text[size : size + PADDING] = 0
            written = self._encode_text(self._text, size, 0)
            if num_ids + written > len(result):
                result.resize(2 * (num_ids + written), refcheck=False)
            result[num_ids : num_ids + written] = self._ids[:written]
            num_ids += written
            begin = end
        result.resize(num_ids, refcheck=False)
        return result

    def _block_end(self, source: np.ndarray, begin: int) -> int:
        """Where the block that begins at `begin` may end."""
        size = self._block_bytes
        while begin + size < len(source):
            cut = last_safe_cut(source[begin : begin + size], size, self._special_tokens)
            if cut > 0:
                return begin + cut
            size *= 2
        return len(source)

    def _encode_text(self, text: np.ndarray, end: int, written: int) -> int:
        """Write the ids of text[:end] to `self._ids` from `written` on; returns where they end.

        text is readable for `PADDING` bytes beyond `end`.
        """
        if self._mend_first:
            text, end, num_malformed = mended_array(text[:end])
            self.num_malformed += num_malformed
        if len(self._ids) < written + end + 1:
            self._ids = np.append(self._ids[:written], np.empty(end + 1, dtype=np.uint32))
        walls = find_special_tokens(text, end, self._specials)
        progress = np.zeros(5, dtype=np.int64)
        progress[WRITTEN] = written
        progress[SPILLED] = self._num_spilled
        while True:
            status = _encode_block(
                text,
                end,
                self._chunk_bytes,
                self._class_table,
                walls.position,
                walls.length,
                self._special_ids[walls.token],
                self._ranks,
                self._work,
                self._table,
                self._spilled,
                self._ids,
                progress,
            )
            self._num_spilled = int(progress[SPILLED])
            if status == DONE:
                return int(progress[WRITTEN])
            if status == MALFORMED:
                # The chunks before this one are encoded; what is left is mended as a whole.
                rest, rest_end, num_malformed = mended_array(text[progress[POSITION] : end])
                self.num_malformed += num_malformed
                return self._encode_text(rest, rest_end, int(progress[WRITTEN]))
            if status == TOO_LONG:
                self._work = new_workspace(int(self._work.extent[0] - progress[POSITION]) + 64)
            else:
                self._make_room()
                progress[SPILLED] = self._num_spilled

    def _make_room(self) -> None:
        """Enlarge the cache, or empty it when it is as large as it may be."""
        table = self._table
        is_full = (
            len(table.rows) > self._cached_words  # grown, it would hold as many words as it has rows now
            or 2 * len(table.letters) > CACHED_LETTERS
            or self._num_spilled + LONGEST_CACHED > len(self._spilled)
        )
        if is_full:
            self._num_spilled = 0
            self._table = new_word_table()
        else:
            self._table = grown(table, LONGEST_CACHED)
