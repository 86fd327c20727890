"""Malformed UTF-8: every malformed sequence becomes U+FFFD, exactly as Python's `errors="replace"` does it."""

import numpy as np

from ..text_blocks import decode_utf8

REPLACEMENT = "\ufffd"


def mend_utf8(data: bytes) -> tuple[bytes, int]:
    """(well-formed text, how many sequences were replaced)."""
    text, num_malformed = decode_utf8(data)
    return text.encode(), num_malformed


def replacement_is_special(special_tokens: list[bytes]) -> bool:
    """Whether mending can make a special token: then it comes before the search for special tokens."""
    return any(REPLACEMENT.encode() in token for token in special_tokens)


def padded_array(data: bytes, padding: int) -> np.ndarray:
    """`data` as a new uint8 array, followed by `padding` zero bytes."""
    array = np.zeros(len(data) + padding, dtype=np.uint8)
    array[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return array
