"""`train_bpe_fast`: count a file's pre-tokens with threads, then merge."""

import os
import threading

import numpy as np
from tqdm import tqdm

from ..plain_train import warn_malformed
from ..workers import usable_cores
from .blocks import BLOCK_BYTES
from .chunks import CHUNK_BYTES
from .counting import count_file
from .merging import MERGES_DONE, STOP, merge_words


def _merge_watched(
    letters: np.ndarray, offsets: np.ndarray, counts: np.ndarray, num_merges: int, show: bool
) -> list[tuple[bytes, bytes]]:
    """`merge_words` in a thread, so that Ctrl-C and a progress bar work while the kernel runs."""
    progress = np.zeros(2, dtype=np.int64)
    outcome: list[list[tuple[bytes, bytes]]] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(merge_words(letters, offsets, counts, num_merges, progress))
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        with tqdm(total=num_merges, desc="merging", unit="merge", disable=not show) as bar:
            while thread.is_alive():
                thread.join(timeout=0.1)
                bar.update(int(progress[MERGES_DONE]) - bar.n)
    finally:
        progress[STOP] = 1
        thread.join()
    if failures:
        raise failures[0]
    return outcome[0]


def train_bpe_fast(
    path: str | os.PathLike,
    vocab_size: int,
    special_tokens: list[str],
    *,
    num_threads: int | None = None,
    progress: bool = False,
    block_bytes: int = BLOCK_BYTES,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Train byte-level BPE on a text file of any size; the result is that of the plain path, byte for byte.

    `cs336_basics.bpe.train.train_bpe` checks the arguments.

    Args:
        path: the text. Bytes are bytes: no newline translation. Each malformed UTF-8 sequence counts as U+FFFD.
        vocab_size: the most entries of the vocabulary: 256 bytes, the merges and the special tokens. Fewer come back
            when the text has no pair left to merge.
        special_tokens: hard borders in the text that take no part in merges; where several fit, the longest does.
        num_threads: threads that count (None: one for each core this process may use).
        progress: show progress bars on standard error.
        block_bytes, chunk_bytes: sizes that the result does not depend on.

    Returns:
        The vocabulary (id -> bytes: the 256 bytes, the merged tokens in order, the special tokens) and the merges.
    """
    size = os.path.getsize(path)
    with tqdm(total=size, desc="counting", unit="B", unit_scale=True, disable=not progress) as bar:
        counter = count_file(
            path,
            special_tokens,
            num_threads or usable_cores(),
            block_bytes=block_bytes,
            chunk_bytes=chunk_bytes,
            on_read=bar.update if progress else None,
        )
    if counter.num_malformed:
        warn_malformed(path, counter.num_malformed)
    letters, offsets, counts = counter.words()
    num_merges = vocab_size - 256 - len(special_tokens)
    merges = _merge_watched(letters, offsets, counts, num_merges, progress)
    entries = [bytes([byte]) for byte in range(256)]
    entries += [left + right for left, right in merges]
    entries += [token.encode() for token in special_tokens]
    return dict(enumerate(entries)), merges
