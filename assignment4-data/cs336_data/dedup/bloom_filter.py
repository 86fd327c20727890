"""Bloom filter (Bloom 1970): a set in a fixed number of bits that may take a stranger for a member, never the reverse.

The places of an item are h₁ + i·h₂, from the two halves of its hash (Kirsch and Mitzenmacher 2006).
"""

import math
import os

import numpy as np
from jaxtyping import Bool, UInt8, UInt64

from cs336_basics.command_line import UsageError
from cs336_data.dedup.kernels import bloom_add, bloom_contains
from cs336_data.dedup.repeated_lines import save_array


class BloomFilter:
    """A set of line hashes.

    Args:
        bits: the filter's bits, eight to a byte; all 0 for an empty set.
        probes: places of an item.
    """

    def __init__(self, bits: UInt8[np.ndarray, " bytes"], probes: int) -> None:
        self.bits, self.probes = bits, probes

    @classmethod
    def sized(cls, capacity: int, false_positive_rate: float) -> "BloomFilter":
        """An empty filter that with this many items in it takes a stranger for a member at this rate.

        m = -n ln p / (ln 2)² bits and k = -log₂ p places (Bloom's optimum), so 1.2 bytes per item for p = 1 %.

        Raises:
            UsageError: the capacity is less than 1 or the rate not between 0 and 1.
        """
        if capacity < 1:
            raise UsageError(f"expected_lines is {capacity}: at least 1 is needed")
        if not 0 < false_positive_rate < 1:
            raise UsageError(f"false_positive_rate is {false_positive_rate}: it must lie between 0 and 1")
        num_bits = -capacity * math.log(false_positive_rate) / math.log(2) ** 2
        return cls(np.zeros(math.ceil(num_bits / 8), np.uint8), max(1, round(-math.log2(false_positive_rate))))

    @classmethod
    def load(cls, path: str | os.PathLike, probes: int) -> "BloomFilter":
        """Open a saved filter, memory-mapped, for reading."""
        return cls(np.asarray(np.load(path, mmap_mode="r")), probes)

    def save(self, path: str | os.PathLike) -> None:
        """Write the bits, atomically."""
        save_array(path, self.bits)

    def add(self, hashes: np.ndarray) -> Bool[np.ndarray, " lines"]:
        """Put hashes in, one after the other; which of them seemed to be there already."""
        return bloom_add(self.bits, _halves(hashes), self.probes)

    def contains(self, hashes: np.ndarray) -> Bool[np.ndarray, " lines"]:
        """Which of the hashes seem to be in the set."""
        return bloom_contains(self.bits, _halves(hashes), self.probes)


def _halves(hashes: np.ndarray) -> UInt64[np.ndarray, "n 2"]:
    halves = np.ascontiguousarray(hashes).view("<u8").reshape(-1, 2).copy()
    halves[:, 1] |= np.uint64(1)  # never 0, which would put all probes in one place
    return halves
