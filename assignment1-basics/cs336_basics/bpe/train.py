"""`train_bpe`: checks the request, then trains on the plain or the fast path, whichever is quicker for it."""

import os
import warnings
from pathlib import Path
from typing import Literal

from cs336_basics.bpe.plain_train import train_bpe_plain
from cs336_basics.bpe.pretokenize import check_special_tokens
from cs336_basics.command_line import UsageError

Method = Literal["auto", "plain", "fast"]
METHODS = ("auto", "plain", "fast")

PLAIN_UP_TO_BYTES = 6 << 20
PLAIN_UP_TO_MERGES = 2_000
"""Up to this much text and this many merges, plain Python is done before the fast path has loaded itself."""


def train_bpe(
    input_path: str | os.PathLike,
    vocab_size: int,
    special_tokens: list[str],
    *,
    num_workers: int | None = None,
    method: Method = "auto",
    progress: bool = False,
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Train a byte-level BPE vocabulary on a text file.

    Ids 0 to 255 are the bytes, then come the merges in order, then the special tokens. Of equally frequent pairs the
    greatest is merged, compared as pairs of byte strings. Every method gives the same result.

    Args:
        input_path: a UTF-8 text of any size, read in constant memory. Malformed sequences are read as U+FFFD, and
            their number is said in a warning.
        vocab_size: number of tokens wanted, at least 256 plus the special tokens. A text that cannot fill it gives a
            smaller vocabulary and a warning that names both sizes.
        special_tokens: hard borders in the text; no merge crosses or touches them. Of several that start at the same
            place the longest counts.
        num_workers: processes (plain) or threads (fast) that count; None: one per core.
        method: "plain" (textbook Python), "fast" (numba), or "auto": by the amount of work.
        progress: show progress bars.

    Returns:
        The vocabulary, id -> bytes, and the merges in order, as pairs of byte strings.

    Raises:
        UsageError: the vocabulary is too small, the file is missing, a special token is empty or given twice, or a
            number or the method is out of range.
    """
    path = Path(input_path)
    special_tokens = check_special_tokens(special_tokens)
    least = 256 + len(special_tokens)
    if vocab_size < least:
        raise UsageError(
            f"vocabulary size {vocab_size} is too small: 256 bytes and {len(special_tokens)} special token(s) "
            f"need at least {least}"
        )
    if not path.is_file():
        raise UsageError(f"there is no text file {path}")
    if num_workers is not None and num_workers < 1:
        raise UsageError(f"number of workers {num_workers} is not allowed: it must be at least 1")
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}: it must be one of {', '.join(METHODS)}")
    if method == "auto":
        small = path.stat().st_size <= PLAIN_UP_TO_BYTES and vocab_size - least <= PLAIN_UP_TO_MERGES
        method = "plain" if small else "fast"
    if method == "plain":
        vocab, merges = train_bpe_plain(path, vocab_size, special_tokens, num_workers=num_workers, progress=progress)
    else:
        from cs336_basics.bpe.fast.training import train_bpe_fast  # numba takes a second to import

        vocab, merges = train_bpe_fast(path, vocab_size, special_tokens, num_threads=num_workers, progress=progress)
    if len(vocab) < vocab_size:
        warnings.warn(
            f"{path} cannot fill a vocabulary of {vocab_size} tokens: no pair is left to merge at {len(vocab)}",
            stacklevel=2,
        )
    return vocab, merges
