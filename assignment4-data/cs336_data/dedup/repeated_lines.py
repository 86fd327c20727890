"""Counting by sorting: which line hashes occur more than once in a corpus larger than memory.

runs        sorted arrays of hashes, each written by whoever read the lines (`write_run`)
partitions  ranges of hashes: one is merged over all runs, as a task of its own (`repeated_in_partition`)
the set     one sorted array on disk, memory-mapped and searched (`RepeatedLines`)
"""

import os
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool

from cs336_basics.atomic_file import atomic_write
from cs336_data.dedup.line_hashes import LINE_HASH

_HASHES_PER_PARTITION = 1 << 22
"""64 MB."""


class RepeatedLines:
    """The hashes of lines that occur more than once.

    Args:
        hashes: sorted.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self.hashes = hashes

    @classmethod
    def of(cls, hash_arrays: Iterable[np.ndarray]) -> "RepeatedLines":
        """Those that occur more than once in all these arrays together, which fit into memory."""
        return cls(_repeated(np.concatenate([np.empty(0, LINE_HASH), *hash_arrays])))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "RepeatedLines":
        """Open a saved set; only what a search touches is read."""
        return cls(np.asarray(np.load(path, mmap_mode="r")))

    def save(self, path: str | os.PathLike) -> None:
        """Write the set, atomically."""
        save_array(path, self.hashes)

    def contains(self, hashes: np.ndarray) -> Bool[np.ndarray, " lines"]:
        """Which of the hashes are in the set."""
        if not self.hashes.size:
            return np.zeros(len(hashes), bool)
        places = np.searchsorted(self.hashes, hashes)
        return self.hashes[np.minimum(places, self.hashes.size - 1)] == hashes


def write_run(path: str | os.PathLike, hashes: np.ndarray) -> None:
    """Write hashes as a sorted run, each of them at most twice: more often changes nothing."""
    hashes = np.sort(hashes)
    is_needed = np.ones(len(hashes), bool)
    is_needed[2:] = hashes[2:] != hashes[:-2]
    save_array(path, hashes[is_needed])


def partition_count(runs: Iterable[str | os.PathLike]) -> int:
    """Into how many partitions to cut the hashes of these runs."""
    return 1 + sum(len(np.load(run, mmap_mode="r")) for run in runs) // _HASHES_PER_PARTITION


def repeated_in_partition(runs: Sequence[str | os.PathLike], partition: int = 0, partitions: int = 1) -> np.ndarray:
    """The hashes of one partition that occur more than once in the runs: sorted; all of one partition's hashes come
    before the next one's."""
    parts = [np.empty(0, LINE_HASH)]
    for run in runs:
        hashes = np.asarray(np.load(run, mmap_mode="r"))
        begin = np.searchsorted(hashes, _border(partition, partitions))
        end = (
            len(hashes) if partition + 1 == partitions else np.searchsorted(hashes, _border(partition + 1, partitions))
        )
        parts.append(hashes[begin:end].copy())  # a reference would keep the file open
    return _repeated(np.concatenate(parts))


def save_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write an array as .npy, atomically."""
    with atomic_write(path) as file:
        np.save(file, array)


def _border(partition: int, partitions: int) -> np.bytes_:
    return np.bytes_(((partition << 64) // partitions).to_bytes(8, "big"))


def _repeated(hashes: np.ndarray) -> np.ndarray:
    hashes = np.sort(hashes)
    again = hashes[1:][hashes[1:] == hashes[:-1]]
    is_first = np.ones(len(again), bool)
    is_first[1:] = again[1:] != again[:-1]
    return again[is_first]
