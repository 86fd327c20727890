"""A file of any size as blocks of a few megabytes that can be handled apart, for one or more threads."""

import threading
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from ..text_blocks import safe_cut
from .chunks import PADDING

BLOCK_BYTES = 4 << 20
_TAIL_BYTES = 1 << 14
"""Where a safe cut is looked for first: at the end of the block."""


def last_safe_cut(text: np.ndarray, size: int, special_tokens: list[bytes]) -> int:
    """The last place in text[:size] where a cut changes no pre-token and no special token; 0 if there is none."""
    reach = max(map(len, special_tokens), default=1) - 1
    tail = min(_TAIL_BYTES, size)
    while True:
        cut = safe_cut(text[size - tail : size].tobytes(), special_tokens)
        if tail == size:
            return cut
        if cut >= max(reach, 1):  # a special token across an earlier cut could begin before the tail, out of sight
            return size - tail + cut
        tail = min(4 * tail, size)


class BlockReader:
    """Reads a binary file from front to back; every block but the last ends at a safe cut.

    What follows the last safe cut of a block is kept for the next one, so memory is one block for each thread. Text
    without any safe cut is read on until one comes: only there may a block grow.

    Args:
        file: open for reading in binary mode.
        special_tokens: as UTF-8; no cut goes through one.
        block_bytes: bytes of a block.
        on_read: called with the number of bytes of each block, by the reading thread.
    """

    def __init__(
        self,
        file: BinaryIO,
        special_tokens: list[bytes],
        block_bytes: int = BLOCK_BYTES,
        on_read: Callable[[int], object] | None = None,
    ) -> None:
        self._file = file
        self._special_tokens = special_tokens
        self._block_bytes = block_bytes
        self._on_read = on_read
        self._kept = np.empty(0, dtype=np.uint8)
        self._lock = threading.Lock()
        self._at_end = False

    def new_buffer(self) -> np.ndarray:
        """A buffer for `next_block`."""
        return np.empty(self._block_bytes + PADDING, dtype=np.uint8)

    def stop(self) -> None:
        """Let every thread find the end of the file at its next call."""
        self._at_end = True

    def next_block(self, buffer: np.ndarray) -> tuple[np.ndarray, int]:
        """(buffer, bytes in it): the next block, followed by zeros; 0 bytes at the end of the file.

        The buffer is the one given, or a larger one where the block needs it.
        """
        with self._lock:
            buffer, size = self._fill(buffer)
        buffer[size : size + PADDING] = 0
        if self._on_read:
            self._on_read(size)
        return buffer, size

    def _fill(self, buffer: np.ndarray) -> tuple[np.ndarray, int]:
        kept = len(self._kept)
        if self._at_end:
            return buffer, 0
        if len(buffer) < kept + self._block_bytes + PADDING:
            buffer = np.empty(kept + self._block_bytes + PADDING, dtype=np.uint8)
        buffer[:kept] = self._kept
        size = kept
        while True:
            wanted = len(buffer) - PADDING
            size = self._read(buffer, size, wanted)
            if size < wanted:
                self._at_end = True
                self._kept = self._kept[:0]
                return buffer, size
            cut = last_safe_cut(buffer, size, self._special_tokens)
            if cut > 0:
                self._kept = buffer[cut:size].copy()
                return buffer, cut
            larger = np.empty(2 * len(buffer), dtype=np.uint8)
            larger[:size] = buffer[:size]
            buffer = larger

    def _read(self, buffer: np.ndarray, size: int, wanted: int) -> int:
        """Read into buffer[size:wanted]; returns the new size, less than `wanted` only at the end of the file."""
        view = memoryview(buffer)
        while size < wanted:
            got = self._file.readinto(view[size:wanted])
            if not got:
                break
            size += got
        return size
