"""Malformed UTF-8: every malformed sequence becomes U+FFFD, exactly as Python's `errors="replace"` does it."""

import numpy as np

from ..text_blocks import decode_utf8
from .chunks import PADDING


def mended_array(text: np.ndarray) -> tuple[np.ndarray, int, int]:
    """(well-formed text followed by `PADDING` zeros, bytes of text in it, how many sequences were replaced)."""
    decoded, num_malformed = decode_utf8(text.tobytes())
    mended = np.frombuffer(decoded.encode(), dtype=np.uint8)
    return np.pad(mended, (0, PADDING)), len(mended), num_malformed
