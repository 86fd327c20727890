"""Malformed UTF-8: every malformed sequence becomes U+FFFD, exactly as Python's `errors="replace"` does it."""

import numpy as np

_REPLACEMENT = "\ufffd"


def mend_utf8(data: bytes) -> tuple[bytes, int]:
    """(well-formed text, how many sequences were replaced).

    What is well-formed stays as it is. The number is exact: a U+FFFD that was in the data is not counted, as its three
    bytes are read as one character wherever they stand.
    """
    text = data.decode("utf-8", errors="replace")
    return text.encode(), text.count(_REPLACEMENT) - data.count(_REPLACEMENT.encode())


def padded_array(data: bytes, padding: int) -> np.ndarray:
    """`data` as a new uint8 array, followed by `padding` zero bytes."""
    array = np.zeros(len(data) + padding, dtype=np.uint8)
    array[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return array
