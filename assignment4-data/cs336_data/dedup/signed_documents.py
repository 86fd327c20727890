"""What matching needs to know of a batch of documents, as files: LSH keys, sorted, and shingles.

Every machine signs its batches by itself; the files take some 8 bytes per word. They are memory-mapped, so that a
partition of the keys is read without the rest.
"""

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash
from jaxtyping import Int64, UInt64

from cs336_basics.atomic_file import atomic_write
from cs336_data.dedup.lsh import band_keys, check_bands
from cs336_data.dedup.minhash import MinHasher


def sign_documents(path: str | os.PathLike, texts: Iterable[str], hasher: MinHasher, num_bands: int) -> int:
    """Write the files of a batch, `PATH.keys.npy` and so on, each atomically; how many documents it has.

    Args:
        path: where, without the ending.
        texts: one of them is in memory at a time; of all of them, the shingles are.
        hasher: makes shingles and signatures.
        num_bands: of the signatures.

    Raises:
        UsageError: the bands do not divide the signatures.
    """
    check_bands(hasher.num_hashes, num_bands)
    shingles = [np.empty(0, np.uint64)]
    signatures = [np.empty(0, np.uint32)]
    for text in texts:
        shingles.append(hasher.shingles(text))
        signatures.append(hasher.signature(shingles[-1]))
    count = len(shingles) - 1
    keys = band_keys(np.concatenate(signatures).reshape(count, hasher.num_hashes), num_bands).ravel()
    order = np.argsort(keys, kind="stable")
    arrays = {
        "keys": keys[order],
        "rows": order // num_bands,
        "offsets": np.cumsum([len(array) for array in shingles]),
        "digests": np.array([xxhash.xxh3_128_digest(array) for array in shingles[1:]], "S16"),
        "shingles": np.concatenate(shingles),
    }
    for name, array in arrays.items():
        with atomic_write(_file(path, name)) as file:
            np.save(file, array)
    return count


class SignedDocuments:
    """The files of a batch.

    Args:
        path: as `sign_documents` got it.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = path

    def _load(self, name: str) -> np.ndarray:
        array = np.load(_file(self._path, name), mmap_mode="r")
        return np.asarray(array)  # memory-mapped still, without memmap's overhead for every slice

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def keys(self) -> UInt64[np.ndarray, " documents_x_bands"]:
        """The LSH keys of all bands of all documents, sorted."""
        return self._load("keys")

    @cached_property
    def rows(self) -> Int64[np.ndarray, " documents_x_bands"]:
        """The document, counted from 0 in this batch, of each key."""
        return self._load("rows")

    @cached_property
    def offsets(self) -> Int64[np.ndarray, " documents_plus_1"]:
        """Where each document's shingles begin in `shingles`, and where the last one's end."""
        return self._load("offsets")

    @cached_property
    def digests(self) -> np.ndarray:
        """Of each document's shingles, 16 bytes (xxh3): equal for equal sets; else with probability 2⁻¹²⁸ only."""
        return self._load("digests")

    @cached_property
    def shingles(self) -> UInt64[np.ndarray, " count"]:
        """The documents' shingles, sorted for each document, one document after the other."""
        return self._load("shingles")


def _file(path: str | os.PathLike, name: str) -> Path:
    return Path(f"{os.fspath(path)}.{name}.npy")
