"""The inner loops, compiled: n-gram hashes, minimum hashes, Jaccard similarity, union-find and Bloom filter.

They are in one file because the cache of machine code notices a change in this file only.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt32, UInt64

from cs336_basics.bpe.fast.jit import kernel

# FNV-1a's 64-bit basis and prime, for the bytes of a word (Fowler, Noll and Vo, RFC 9923).
_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
# The constants of splitmix64's output function (Steele, Lea and Flood 2014), which spreads every bit over all others.
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SPACE = 32


@kernel
def _mix(value):  # noqa: ANN001, ANN202
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@kernel
def ngram_hashes(text: UInt8[np.ndarray, " bytes"], ngrams: int) -> UInt64[np.ndarray, " count"]:
    """Hashes of the text's word n-grams, in order. Words are what spaces separate.

    A text of fewer than n words has one shingle: all its words.
    """
    words = np.empty(text.size // 2 + 1, np.uint64)
    count = 0
    value, is_inside = _BASIS, False
    for byte in text:
        if byte != _SPACE:
            value, is_inside = (value ^ np.uint64(byte)) * _PRIME, True
        elif is_inside:
            words[count] = _mix(value)
            count += 1
            value, is_inside = _BASIS, False
    if is_inside:
        words[count] = _mix(value)
        count += 1
    length = min(ngrams, count)
    shingles = np.empty(count - length + 1, np.uint64)
    for start in range(shingles.size):
        # The word's place counts: each step mixes before the next word comes in.
        value = np.uint64(length)
        for word in words[start : start + length]:
            value = _mix(value + word)
        shingles[start] = value
    return shingles


@kernel
def minimum_hashes(
    shingles: UInt64[np.ndarray, " count"],
    multipliers: UInt32[np.ndarray, " num_hashes"],
    increments: UInt32[np.ndarray, " num_hashes"],
    minima: UInt32[np.ndarray, " num_hashes"],
) -> None:
    """Lower each of the minima to the smallest of its hash function's values over the shingles."""
    for shingle in shingles:
        value = np.uint32(shingle >> np.uint64(32))
        for i in range(minima.size):
            minima[i] = min(minima[i], np.uint32(multipliers[i] * value + increments[i]))


@kernel
def sorted_jaccard(a: UInt64[np.ndarray, " m"], b: UInt64[np.ndarray, " n"]) -> float:
    """Jaccard similarity of two sets given as sorted arrays without repetitions, at least one of them not empty."""
    i = j = common = 0
    while i < a.size and j < b.size:
        if a[i] == b[j]:
            common += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return common / (a.size + b.size - common)


@kernel
def _find(parents, member):  # noqa: ANN001, ANN202
    while parents[member] != member:
        parents[member] = parents[parents[member]]  # path halving
        member = parents[member]
    return member


@kernel
def unite(parents: Int64[np.ndarray, " n"], pairs: Int64[np.ndarray, "m 2"]) -> None:
    """Join the trees of each pair. The smaller root becomes the root, so that roots are the smallest members."""
    for k in range(pairs.shape[0]):
        a, b = _find(parents, pairs[k, 0]), _find(parents, pairs[k, 1])
        parents[max(a, b)] = min(a, b)


@kernel
def flatten(parents: Int64[np.ndarray, " n"]) -> None:
    """Let every member point at its root."""
    for member in range(parents.size):
        parents[member] = _find(parents, member)


@kernel
def spanning_edges(
    keys: UInt64[np.ndarray, " m"],
    members: Int64[np.ndarray, " m"],
    offsets: Int64[np.ndarray, " documents_plus_1"],
    shingles: UInt64[np.ndarray, " count"],
    threshold: float,
) -> Int64[np.ndarray, "edges 2"]:
    """Pairs of members of one bucket whose Jaccard similarity reaches the threshold, without those that would join
    what other pairs joined already: a spanning forest of the graph of all such pairs.

    Args:
        keys: the bucket of each member, sorted.
        members: numbers of documents.
        offsets: where each document's sorted shingles begin, and where the last one's end.
        shingles: those of all documents, one after the other.
        threshold: the least similarity.
    """
    parents = np.arange(offsets.size - 1)
    edges = np.empty((parents.size, 2), np.int64)
    count = start = 0
    for current in range(keys.size):
        if keys[current] != keys[start]:
            start = current
        b = members[current]
        for earlier in range(start, current):
            a = members[earlier]
            root_a, root_b = _find(parents, a), _find(parents, b)
            if root_a == root_b:
                continue
            of_a, of_b = shingles[offsets[a] : offsets[a + 1]], shingles[offsets[b] : offsets[b + 1]]
            if sorted_jaccard(of_a, of_b) >= threshold:
                parents[max(root_a, root_b)] = min(root_a, root_b)
                edges[count, 0], edges[count, 1] = a, b
                count += 1
    return edges[:count]


@kernel
def bloom_add(
    bits: UInt8[np.ndarray, " bytes"], hashes: UInt64[np.ndarray, "n 2"], probes: int
) -> Bool[np.ndarray, " n"]:
    """Put the items into the filter one after the other; which of them seemed to be there already."""
    size = np.uint64(bits.size) * np.uint64(8)
    was_there = np.ones(hashes.shape[0], np.bool_)
    for k in range(hashes.shape[0]):
        for probe in range(probes):
            place = (hashes[k, 0] + np.uint64(probe) * hashes[k, 1]) % size
            byte, bit = place >> np.uint64(3), np.uint8(np.uint64(1) << (place & np.uint64(7)))
            if not bits[byte] & bit:
                was_there[k] = False
                bits[byte] |= bit
    return was_there


@kernel
def bloom_contains(
    bits: UInt8[np.ndarray, " bytes"], hashes: UInt64[np.ndarray, "n 2"], probes: int
) -> Bool[np.ndarray, " n"]:
    """Which of the items seem to be in the filter."""
    size = np.uint64(bits.size) * np.uint64(8)
    is_there = np.ones(hashes.shape[0], np.bool_)
    for k in range(hashes.shape[0]):
        for probe in range(probes):
            place = (hashes[k, 0] + np.uint64(probe) * hashes[k, 1]) % size
            if not bits[place >> np.uint64(3)] & np.uint8(np.uint64(1) << (place & np.uint64(7))):
                is_there[k] = False
                break
    return is_there
