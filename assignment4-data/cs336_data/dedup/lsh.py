"""Locality-sensitive hashing: which documents are worth comparing (Leskovec, Rajaraman and Ullman 2020, section 3.4).

A signature is cut into b bands of r rows. Two documents are candidates if they agree in all rows of a band, which for
similarity s happens with probability 1 - (1 - sʳ)ᵇ: a steep curve around (1/b)^(1/r).
"""

import numpy as np
from jaxtyping import UInt32, UInt64

from cs336_basics.command_line import UsageError

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio (Knuth 1973, section 6.4)


def check_bands(num_hashes: int, num_bands: int) -> None:
    """See that signatures can be cut into bands of equal size.

    Raises:
        UsageError: they cannot.
    """
    if num_bands < 1 or num_hashes % num_bands:
        raise UsageError(f"num_bands is {num_bands}: it must be at least 1 and divide num_hashes, {num_hashes}")


def candidate_probability(similarity: float, num_hashes: int, num_bands: int) -> float:
    """1 - (1 - sʳ)ᵇ, the chance that two documents of this Jaccard similarity become candidates."""
    check_bands(num_hashes, num_bands)
    return 1 - (1 - similarity ** (num_hashes // num_bands)) ** num_bands


def band_keys(signatures: UInt32[np.ndarray, "n num_hashes"], num_bands: int) -> UInt64[np.ndarray, "n num_bands"]:
    """One number for each band: equal if all rows of the same band are.

    Different rows, or the rows of another band, get the same number with probability 2⁻⁶⁴ per pair; such a pair is
    compared in vain, and nothing else.

    Raises:
        UsageError: the bands do not divide the signatures.
    """
    count, num_hashes = signatures.shape
    check_bands(num_hashes, num_bands)
    rows = signatures.reshape(count, num_bands, num_hashes // num_bands).astype(np.uint64)
    keys = np.tile(np.arange(num_bands, dtype=np.uint64), (count, 1))
    for row in range(rows.shape[2]):
        keys = (keys ^ rows[:, :, row]) * _MULTIPLIER
        keys ^= keys >> np.uint64(29)
    return keys
