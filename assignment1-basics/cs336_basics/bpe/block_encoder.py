"""Encoding the blocks of a file with several workers: threads on the fast path, processes on the plain one."""

import contextlib
import multiprocessing
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt32

from cs336_basics.bpe.ordered_map import ordered_map
from cs336_basics.bpe.text_blocks import decode_utf8
from cs336_basics.tokenizer import FAST_FROM, Tokenizer

SMALL_FILE = 8 << 20
"""Bytes up to which starting processes costs more than it saves."""


@dataclass(frozen=True)
class EncodedBlock:
    """The ids of one block of text."""

    ids: UInt32[np.ndarray, " num_tokens"]
    num_bytes: int
    """Bytes of text."""
    num_malformed: int
    """Malformed UTF-8 sequences in it, read as U+FFFD."""


EncodeBlocks = Callable[[Iterator[bytes]], Iterator[EncodedBlock]]


@contextlib.contextmanager
def block_encoder(tokenizer: Tokenizer, num_bytes: int, num_workers: int) -> Iterator[EncodeBlocks]:
    """A function that encodes a stream of blocks, in order, with only a few blocks in memory.

    Args:
        tokenizer: gives the ids.
        num_bytes: bytes of text in all, by which the path is chosen.
        num_workers: threads or processes.
    """
    if num_bytes >= FAST_FROM and tokenizer.has_fast_path:
        idle = queue.SimpleQueue()
        first = tokenizer.fast_encoder()
        for encoder in (first, *(first.clone() for _ in range(num_workers - 1))):
            idle.put(encoder)

        def encode(block: bytes) -> EncodedBlock:
            encoder = idle.get()
            try:
                return EncodedBlock(encoder.encode(block), len(block), _num_malformed(block))
            finally:
                idle.put(encoder)

        with ThreadPoolExecutor(num_workers) as pool:
            yield lambda blocks: ordered_map(pool, encode, blocks, under_way=2 * num_workers)
    elif num_bytes > SMALL_FILE and num_workers > 1:
        context = multiprocessing.get_context("spawn")  # alike on Linux and macOS, and safe beside threads
        with ProcessPoolExecutor(num_workers, context, _set_up_worker, (tokenizer,)) as pool:
            yield lambda blocks: ordered_map(pool, _encode_in_worker, blocks, under_way=2 * num_workers)
    else:
        yield lambda blocks: (_encode_plain(tokenizer, block) for block in blocks)


_worker_tokenizer: Tokenizer


def _set_up_worker(tokenizer: Tokenizer) -> None:
    global _worker_tokenizer
    _worker_tokenizer = tokenizer


def _encode_in_worker(block: bytes) -> EncodedBlock:
    return _encode_plain(_worker_tokenizer, block)


def _encode_plain(tokenizer: Tokenizer, block: bytes) -> EncodedBlock:
    text, num_malformed = decode_utf8(block)
    return EncodedBlock(np.fromiter(tokenizer.encode_plain(text), dtype=np.uint32), len(block), num_malformed)


def _num_malformed(block: bytes) -> int:
    return 0 if block.isascii() else decode_utf8(block)[1]
