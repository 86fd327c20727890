"""Documents to token ids, each followed by `<|endoftext|>`; and which documents are kept for validation."""

import numpy as np
import xxhash
from jaxtyping import UInt

from cs336_basics.command_line import UsageError
from cs336_basics.token_file import token_dtype
from cs336_basics.tokenizer import END_OF_TEXT, FAST_WHEN_LOADED, Tokenizer

FAST_AFTER = 4 << 20
"""Bytes of documents that plain Python encodes in about the time that loading the compiled path takes."""


def well_formed(text: str) -> tuple[bytes, int]:
    """The text as UTF-8, and how many lone surrogates, which JSON can hold and UTF-8 cannot, became U+FFFD."""
    try:
        return text.encode(), 0
    except UnicodeEncodeError:
        mended = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return mended.encode(), mended.count("\ufffd") - text.count("\ufffd")


def is_for_validation(text: bytes, fraction: float) -> bool:
    """Whether a document belongs to the validation set.

    A hash of its text alone decides (XXH3, 64 bits): the same in every run, whatever the order, number and names of the
    files, and equal documents are never on both sides.

    Args:
        text: the document.
        fraction: the share of documents for validation, 0 to 1.
    """
    return xxhash.xxh3_64_intdigest(text) < fraction * 2**64


class DocumentEncoder:
    """Gives the ids of document after document.

    A document is text only: where it spells out `<|endoftext|>`, that is encoded as ordinary characters. Only the end
    of a document gives that token.

    Args:
        tokenizer: any tokenizer with `<|endoftext|>`.

    Raises:
        UsageError: the tokenizer has no `<|endoftext|>`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.eos_id is None:
            raise UsageError(f"the tokenizer has no {END_OF_TEXT}, which ends every document")
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._end = np.array([tokenizer.eos_id], dtype=self._dtype)
        self._ordinary = Tokenizer(tokenizer.vocab, tokenizer.merges)
        self._num_bytes = 0

    def __call__(self, text: bytes) -> UInt[np.ndarray, " num_tokens"]:
        """The ids of a document (UTF-8) and of the `<|endoftext|>` after it, as wide as in a token file."""
        self._num_bytes += len(text)
        if self._num_bytes > FAST_AFTER and len(text) >= FAST_WHEN_LOADED and self._ordinary.has_fast_path:
            with self._ordinary.fast_encoder() as encoder:
                ids = encoder.encode(text)
        else:
            ids = np.fromiter(self._ordinary.encode_plain(text.decode()), dtype=np.uint32)
        return np.concatenate((ids.astype(self._dtype), self._end))
