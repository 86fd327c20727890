"""A block's pre-tokens, chunk by chunk.

Chunks are cut at a simple kind of safe place, the *border*: white space of ASCII with something before it that is not
white space. No alternative of GPT-2's pattern matches across such a place, and none looks beyond it from the left. It
is an ASCII byte, so malformed UTF-8 cannot reach across it either. Only a special token can; where those are is known.
"""

from typing import NamedTuple

import numpy as np

from cs336_basics.command_line import UsageError

from ..unicode_classes import WHITE_SPACE
from .bits import NUM_MASKS, trailing_zeros
from .jit import kernel
from .pretokens import ONE, ZERO, decode_character, find_pretokens

CHUNK_BYTES = 16384
"""Bytes handled at a time within a block: text, masks and starts stay in the fastest cache."""

PADDING = 128
"""Readable bytes that every text array needs after its end, for loads of 8 and 64 bytes at once."""

CHUNK_DONE, CHUNK_MALFORMED, CHUNK_TOO_LONG = 0, 1, 2


@kernel
def _is_border(text: np.ndarray, begin: int, position: int, class_table: np.ndarray) -> bool:
    """Whether `position` (> begin) is a border."""
    byte = text[position]
    if byte != 32 and (byte < 9 or byte > 13):
        return False
    before = text[position - 1]
    if before < 0x80:
        return before != 32 and (before < 9 or before > 13)
    first = position - 1
    while first > begin and first > position - 4 and text[first] & 0xC0 == 0x80:
        first -= 1
    code_point, size = decode_character(text, first, position)
    # Malformed bytes become U+FFFD, which is no white space.
    return size == 0 or class_table[code_point] != WHITE_SPACE


@kernel
def _last_border(text: np.ndarray, begin: int, lowest: int, end: int, class_table: np.ndarray) -> int:
    """The last border at `lowest` or later, before `end`, or -1; the text begins at `begin` < `lowest`."""
    position = end - 1
    while position >= lowest:
        if _is_border(text, begin, position, class_table):
            return position
        position -= 1
    return -1


class Workspace(NamedTuple):
    """Scratch arrays for the pre-tokens of one chunk."""

    masks: np.ndarray
    """uint64: `NUM_MASKS` words for each 64 bytes."""
    bitmap: np.ndarray
    """uint64: one bit for each byte, set where a pre-token begins."""
    starts: np.ndarray
    """int32: offsets of the pre-tokens in the chunk, then the chunk's length."""
    extent: np.ndarray
    """int64[3]: the chunk's end, its number of pre-tokens, and the index of the first special token after it."""


def new_workspace(chunk_bytes: int = 4 * CHUNK_BYTES) -> Workspace:
    """Room for chunks of up to `chunk_bytes` bytes.

    Raises:
        UsageError: a chunk of the text has 2^31 bytes or more.
    """
    if chunk_bytes >= 2**31:
        raise UsageError(f"the text has {chunk_bytes} bytes without white space to cut it at; allowed are {2**31 - 1}")
    groups = chunk_bytes // 64 + 2
    return Workspace(
        masks=np.empty((groups + 1) * NUM_MASKS, dtype=np.uint64),
        bitmap=np.empty(groups, dtype=np.uint64),
        starts=np.empty(groups * 64 + 1, dtype=np.int32),
        extent=np.zeros(3, dtype=np.int64),
    )


@kernel
def _chunk_end(
    text: np.ndarray,
    begin: int,
    end: int,
    chunk_bytes: int,
    class_table: np.ndarray,
    wall_at: np.ndarray,
    wall_length: np.ndarray,
    wall: int,
) -> int:
    """The end of the chunk that begins at `begin`: a border outside special tokens, or the block's end."""
    size = chunk_bytes
    while begin + size < end:
        cut = _last_border(text, begin, begin + max(size // 2, 1), begin + size, class_table)
        if cut >= 0:
            k = wall
            while k < wall_at.shape[0] and wall_at[k] + wall_length[k] <= cut:
                k += 1
            if k == wall_at.shape[0] or wall_at[k] >= cut:
                return cut
        size *= 2
    return end


@kernel
def split_chunk(
    text: np.ndarray,
    begin: int,
    end: int,
    chunk_bytes: int,
    class_table: np.ndarray,
    wall_at: np.ndarray,
    wall_length: np.ndarray,
    wall: int,
    work: Workspace,
) -> int:
    """Find the pre-tokens of the chunk that begins at `begin`, into `work.starts` and `work.extent`.

    Args:
        text: uint8, the block, readable for `PADDING` bytes beyond `end`.
        begin, end: the rest of the block.
        chunk_bytes: the wanted length; a chunk is longer where there is no border.
        wall_at, wall_length: where the block's special tokens are.
        wall: the index of the first special token at or after `begin`.
    """
    chunk_end = _chunk_end(text, begin, end, chunk_bytes, class_table, wall_at, wall_length, wall)
    length = chunk_end - begin
    if length >= work.starts.shape[0] - 64:
        work.extent[0] = chunk_end
        return CHUNK_TOO_LONG
    next_wall = wall
    while next_wall < wall_at.shape[0] and wall_at[next_wall] < chunk_end:
        next_wall += 1
    if not find_pretokens(
        text,
        begin,
        chunk_end,
        class_table,
        wall_at[wall:next_wall],
        wall_length[wall:next_wall],
        work.masks,
        work.bitmap,
    ):
        return CHUNK_MALFORMED
    count = 0
    for group in range((length + 63) >> 6):
        pending = work.bitmap[group]
        while pending != ZERO:
            work.starts[count] = (group << 6) + trailing_zeros(pending)
            pending &= pending - ONE
            count += 1
    work.starts[count] = length
    work.extent[0] = chunk_end
    work.extent[1] = count
    work.extent[2] = next_wall
    return CHUNK_DONE
