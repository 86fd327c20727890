"""MinHash signatures of a text's word n-grams (Broder 1997, "On the resemblance and containment of documents").

For a random permutation of all n-grams, the chance that two sets of them have the same minimum is their Jaccard
similarity; a signature holds the minima under many hash functions. Those are h(x) = (a·x + b) mod 2³², a odd, of a
64-bit hash's upper half: products that wrap around cost one instruction for eight of them. Everything depends on the
text and the seed alone, so that machines and processes agree.
"""

import numpy as np
from jaxtyping import UInt32, UInt64

from cs336_basics.command_line import UsageError
from cs336_data.dedup.kernels import minimum_hashes, ngram_hashes, sorted_jaccard
from cs336_data.dedup.normalization import normalized_bytes


class MinHasher:
    """Turns texts into shingles and shingles into signatures; pickles.

    Args:
        num_hashes: length of a signature. The estimate's standard deviation is at most 1 / (2 √num_hashes).
        ngrams: words of a shingle.
        seed: of the hash functions.

    Raises:
        UsageError: a number is less than 1, or the seed negative.
    """

    def __init__(self, num_hashes: int = 100, ngrams: int = 5, seed: int = 0) -> None:
        for name, value in (("num_hashes", num_hashes), ("ngrams", ngrams)):
            if value < 1:
                raise UsageError(f"{name} is {value}: at least 1 is needed")
        if seed < 0:
            raise UsageError(f"seed is {seed}: it must be at least 0")
        self.num_hashes, self.ngrams, self.seed = num_hashes, ngrams, seed
        rng = np.random.default_rng(seed)
        self._multipliers = rng.integers(0, 2**32, num_hashes, np.uint32) | np.uint32(1)
        self._increments = rng.integers(0, 2**32, num_hashes, np.uint32)

    def shingles(self, text: str) -> UInt64[np.ndarray, " count"]:
        """Hashes of the normalized text's word n-grams: sorted, each once, never none.

        A text of fewer than n words has one shingle, all its words, so that it equals only texts of the same words.
        Two n-grams out of k get the same hash with probability k² / 2⁶⁵: 10⁻¹¹ for the longest documents.
        """
        shingles = self._ngram_hashes(text)
        shingles.sort()
        is_first = np.ones(shingles.size, bool)
        np.not_equal(shingles[1:], shingles[:-1], out=is_first[1:])
        return shingles[is_first]

    def signature(self, shingles: UInt64[np.ndarray, " count"]) -> UInt32[np.ndarray, " num_hashes"]:
        """The minimum of each hash function over the shingles; their order and repetitions do not matter."""
        minima = np.full(self.num_hashes, 2**32 - 1, np.uint32)
        minimum_hashes(shingles, self._multipliers, self._increments, minima)
        return minima

    def text_signature(self, text: str) -> UInt32[np.ndarray, " num_hashes"]:
        """The signature of a text whose shingles are not needed."""
        return self.signature(self._ngram_hashes(text))

    def _ngram_hashes(self, text: str) -> UInt64[np.ndarray, " count"]:
        return ngram_hashes(np.frombuffer(normalized_bytes(text), np.uint8), self.ngrams)


def jaccard(a: UInt64[np.ndarray, " m"], b: UInt64[np.ndarray, " n"]) -> float:
    """|A ∩ B| / |A ∪ B| of two texts' shingles (`MinHasher.shingles`)."""
    return sorted_jaccard(a, b)


def estimated_jaccard(a: UInt32[np.ndarray, " num_hashes"], b: UInt32[np.ndarray, " num_hashes"]) -> float:
    """What two signatures say about the similarity of their sets: the share of equal minima, an unbiased estimate."""
    return float(np.mean(a == b))
