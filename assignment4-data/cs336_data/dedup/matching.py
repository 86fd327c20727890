"""From signed batches to clusters of near-duplicates: compare the documents that share an LSH bucket, join the pairs.

Keys are partitioned by range: `match` handles one partition of all batches, as a task of its own, and returns edges;
`join_matches` takes the edges of all partitions together. Memory is bounded by a partition, and by 8 bytes per document
in the end.
"""

import os
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64, UInt64

from cs336_data.dedup.components import Components
from cs336_data.dedup.kernels import spanning_edges
from cs336_data.dedup.signed_documents import SignedDocuments

_KEYS_PER_PARTITION = 1 << 21
"""16 MB of keys; 100,000 documents with 20 bands, whose shingles are loaded if they have candidates."""


def partition_count(batches: Iterable[str | os.PathLike]) -> int:
    """Into how many partitions to cut the keys of these batches."""
    return 1 + sum(len(SignedDocuments(batch).keys) for batch in batches) // _KEYS_PER_PARTITION


def match(
    batches: Sequence[str | os.PathLike], threshold: float, partition: int = 0, partitions: int = 1
) -> Int64[np.ndarray, "edges 2"]:
    """Pairs of documents that share a bucket of this partition and whose true Jaccard similarity reaches the threshold.

    Left out are pairs that would join what other pairs of the partition join already; the connected components are
    those of all such pairs. Documents are numbered through the batches, in the batches' order.

    Args:
        batches: paths as `sign_documents` got them.
        threshold: the least similarity, in (0, 1].
        partition: which one, from 0.
        partitions: how many there are.
    """
    keys, documents = _keys(batches, partition, partitions)
    documents, members = np.unique(documents, return_inverse=True)
    digests = _digests(batches, documents)
    # Documents with the same shingles are in the same buckets and match; one of each stands for them all.
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    stands_for = first[group]
    identical = np.flatnonzero(stands_for != np.arange(len(documents)))
    edges = np.stack([stands_for[identical], identical], axis=1)

    keys, members = _shared_buckets(keys, stands_for[members])
    compared, members = np.unique(members, return_inverse=True)
    shingles = _shingles(batches, documents[compared])
    offsets = np.cumsum([0, *map(len, shingles)])
    verified = spanning_edges(keys, members, offsets, np.concatenate([np.empty(0, np.uint64), *shingles]), threshold)
    return documents[np.concatenate([edges, compared[verified]])]


def join_matches(count: int, edges: Iterable[Int64[np.ndarray, "edges 2"]]) -> Int64[np.ndarray, " documents"]:
    """For each of `count` documents the first one of its cluster: itself for those that stay.

    Args:
        count: documents in all batches.
        edges: what `match` returned for each partition.
    """
    components = Components(count)
    for part in edges:
        components.join(part)
    return components.smallest()


def _keys(
    batches: Sequence[str | os.PathLike], partition: int, partitions: int
) -> tuple[UInt64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """The partition's keys, sorted, and the documents they are of; documents of one key in their order."""
    low, high = ((part << 64) // partitions for part in (partition, partition + 1))
    keys, documents, start = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], 0
    for batch in map(SignedDocuments, batches):
        begin = np.searchsorted(batch.keys, np.uint64(low))
        end = np.searchsorted(batch.keys, np.uint64(high - 1), side="right")
        keys.append(batch.keys[begin:end])
        documents.append(batch.rows[begin:end] + start)
        start += len(batch)
    all_keys, all_documents = np.concatenate(keys), np.concatenate(documents)
    order = np.argsort(all_keys, kind="stable")
    return all_keys[order], all_documents[order]


def _shared_buckets(
    keys: UInt64[np.ndarray, " m"], members: Int64[np.ndarray, " m"]
) -> tuple[UInt64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """The buckets, each member once, that have at least two members."""
    order = np.lexsort((members, keys))
    keys, members = keys[order], members[order]
    is_new = np.ones(len(keys), bool)
    is_new[1:] = (keys[1:] != keys[:-1]) | (members[1:] != members[:-1])
    keys, members = keys[is_new], members[is_new]
    is_shared = np.zeros(len(keys), bool)
    equal = keys[1:] == keys[:-1]
    is_shared[1:] |= equal
    is_shared[:-1] |= equal
    return keys[is_shared], members[is_shared]


def _digests(batches: Sequence[str | os.PathLike], documents: Int64[np.ndarray, " n"]) -> np.ndarray:
    parts = [batch.digests[rows] for batch, rows in _by_batch(batches, documents)]
    return np.concatenate([np.empty(0, "S16"), *parts])


def _shingles(
    batches: Sequence[str | os.PathLike], documents: Int64[np.ndarray, " n"]
) -> list[UInt64[np.ndarray, " count"]]:
    found = []
    for batch, rows in _by_batch(batches, documents):
        # A copy: a reference would keep the batch's files open.
        found += [batch.shingles[batch.offsets[row] : batch.offsets[row + 1]].copy() for row in rows]
    return found


def _by_batch(
    batches: Sequence[str | os.PathLike], documents: Int64[np.ndarray, " n"]
) -> Iterable[tuple[SignedDocuments, Int64[np.ndarray, " rows"]]]:
    """For every batch which of its rows are among the documents, a sorted array of numbers."""
    start = 0
    for batch in map(SignedDocuments, batches):
        begin, end = np.searchsorted(documents, [start, start + len(batch)])
        yield batch, documents[begin:end] - start
        start += len(batch)
