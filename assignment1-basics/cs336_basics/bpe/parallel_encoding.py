"""Encoding files and batches with several workers: threads on the fast path, processes on the plain one."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
from jaxtyping import UInt32

from cs336_basics.bpe.text_blocks import decode_utf8
from cs336_basics.bpe.workers import ordered_map, process_pool, usable_cores
from cs336_basics.command_line import UsageError
from cs336_basics.tokenizer import FAST_WHEN_LOADED, Tokenizer

SMALL = 16 << 20
"""Bytes or characters up to which plain Python is done here before other processes or the fast path have started."""


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
    if num_bytes > SMALL and tokenizer.has_fast_path:
        encode = partial(_encode_fast, tokenizer)
        with ThreadPoolExecutor(num_workers) as pool:
            yield lambda blocks: ordered_map(pool, encode, blocks, under_way=2 * num_workers)
    elif num_bytes > SMALL and num_workers > 1:
        with process_pool(num_workers, _set_up_worker, tokenizer) as pool:
            yield lambda blocks: ordered_map(pool, _encode_block_in_worker, blocks, under_way=2 * num_workers)
    else:
        yield lambda blocks: (_encode_plain(tokenizer, block) for block in blocks)


def encode_batch(tokenizer: Tokenizer, texts: Sequence[str], num_workers: int | None = None) -> list[list[int]]:
    """See `Tokenizer.encode_batch`."""
    if num_workers is not None and num_workers < 1:
        raise UsageError(f"number of workers {num_workers} is not allowed: it must be at least 1")
    num_workers = num_workers or usable_cores()
    num_characters = sum(map(len, texts))
    if num_characters <= SMALL or num_workers == 1:
        return [tokenizer.encode(text) for text in texts]
    # Texts travel in groups, several for each worker so that all finish at about the same time.
    size = -(-len(texts) // (8 * num_workers))
    groups = [texts[start : start + size] for start in range(0, len(texts), size)]
    if tokenizer.has_fast_path and num_characters >= FAST_WHEN_LOADED * len(texts):
        with ThreadPoolExecutor(num_workers) as pool:
            encoded = pool.map(lambda group: [tokenizer.encode_fast(text) for text in group], groups)
            return list(chain.from_iterable(encoded))
    with process_pool(num_workers, _set_up_worker, tokenizer) as pool:
        return list(chain.from_iterable(pool.map(_encode_texts_in_worker, groups)))


_worker_tokenizer: Tokenizer


def _set_up_worker(tokenizer: Tokenizer) -> None:
    global _worker_tokenizer
    _worker_tokenizer = tokenizer


def _encode_block_in_worker(block: bytes) -> EncodedBlock:
    return _encode_plain(_worker_tokenizer, block)


def _encode_texts_in_worker(texts: Sequence[str]) -> list[list[int]]:
    return [list(_worker_tokenizer.encode_plain(text)) for text in texts]


def _encode_fast(tokenizer: Tokenizer, block: bytes) -> EncodedBlock:
    with tokenizer.fast_encoder() as encoder:
        malformed_before = encoder.num_malformed
        ids = encoder.encode(block)
        return EncodedBlock(ids, len(block), encoder.num_malformed - malformed_before)


def _encode_plain(tokenizer: Tokenizer, block: bytes) -> EncodedBlock:
    text, num_malformed = decode_utf8(block)
    return EncodedBlock(np.fromiter(tokenizer.encode_plain(text), dtype=np.uint32), len(block), num_malformed)
