"""The parallel work of deduplication: callables that pickle, each for one unit or one partition of hashes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from jaxtyping import Int64

from cs336_data.dedup.line_hashes import LINE_HASH, line_hashes
from cs336_data.dedup.matching import match
from cs336_data.dedup.minhash import MinHasher
from cs336_data.dedup.repeated_lines import repeated_in_partition, save_array, write_run
from cs336_data.dedup.signed_documents import sign_documents
from cs336_data.dedup.urls import normalize_url
from cs336_data.pipeline.compressed_json import read_objects
from cs336_data.pipeline.dedup_settings import NEAR, URLS, DedupSettings
from cs336_data.pipeline.inputs import Unit
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.markers import write_marker
from cs336_data.pipeline.shards import documents_to_remove
from cs336_data.pipeline.summary import Summary

NO_URL = 0


class Partition(NamedTuple):
    """A range of hashes, as the engine's piece of work."""

    key: str
    number: int
    size: int = 1


class Timed(NamedTuple):
    """A task's result and the CPU seconds it took."""

    value: np.ndarray | None
    seconds: float


@dataclass(frozen=True)
class SignUnit:
    """Writes what matching needs to know of a unit's documents: ids, URL hashes, and MinHash keys and shingles."""

    layout: Layout
    settings: DedupSettings

    def version(self, unit: Unit) -> list:
        """What a unit's signed documents depend on."""
        s = self.settings
        return [unit.version, NEAR in s.stages and [s.num_hashes, s.num_bands, s.ngrams, s.seed]]

    def __call__(self, unit: Unit) -> Summary:
        hasher = MinHasher(self.settings.num_hashes, self.settings.ngrams, self.settings.seed)
        hasher.text_signature("Compiled now, so that it counts as no document's time.")
        start = time.thread_time()
        identities: list[tuple[int, int]] = []
        texts = self._texts(unit, identities)
        if NEAR in self.settings.stages:
            sign_documents(self.layout.signed(unit.key), texts, hasher, self.settings.num_bands)
        else:
            for _ in texts:
                pass
        save_array(self.layout.identities(unit.key), np.array(identities, np.uint64).reshape(-1, 2))
        summary = Summary()
        summary.seconds[NEAR if NEAR in self.settings.stages else URLS] = time.thread_time() - start
        write_marker(self.layout.sign_marker(unit.key), self.version(unit), summary)
        return summary

    def _texts(self, unit: Unit, identities: list[tuple[int, int]]) -> Iterator[str]:
        """The unit's texts; each one's id and URL hash are put down as it passes."""
        for record in read_objects(self.layout.filtered(unit.key)):
            url = normalize_url(record["url"])
            identities.append((int(record["id"], 16), xxhash.xxh3_64_intdigest(_bytes(url)) if url else NO_URL))
            yield record["text"]


@dataclass(frozen=True)
class MatchPartition:
    """Finds pairs of near-duplicates of all units among the LSH keys of one partition."""

    batches: Sequence[Path]
    threshold: float
    partitions: int

    def __call__(self, partition: Partition) -> Timed:
        match((), self.threshold)  # compiled now, so that it counts as no document's time
        start = time.thread_time()
        edges: Int64[np.ndarray, "edges 2"] = match(self.batches, self.threshold, partition.number, self.partitions)
        return Timed(edges, time.thread_time() - start)


@dataclass(frozen=True)
class HashLines:
    """Writes the hashes of the lines of a unit's documents, without those that are to be removed."""

    layout: Layout

    def __call__(self, unit: Unit) -> Timed:
        start = time.thread_time()
        removed = documents_to_remove(self.layout, unit.key)
        records = enumerate(read_objects(self.layout.filtered(unit.key)))
        hashes = [line_hashes(record["text"]) for index, record in records if index not in removed]
        write_run(self.layout.line_run(unit.key), np.concatenate([np.empty(0, LINE_HASH), *hashes]))
        return Timed(None, time.thread_time() - start)


@dataclass(frozen=True)
class RepeatedPartition:
    """Finds the line hashes of one partition that occur more than once in all units."""

    runs: Sequence[Path]
    partitions: int

    def __call__(self, partition: Partition) -> Timed:
        start = time.thread_time()
        return Timed(repeated_in_partition(self.runs, partition.number, self.partitions), time.thread_time() - start)


_bytes = partial(str.encode, encoding="utf-8", errors="surrogatepass")
