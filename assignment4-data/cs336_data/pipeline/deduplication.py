"""The last stage: documents that repeat others, or lines that do, go; what stays becomes the result's shards.

The order is URL duplicates, near-duplicates (MinHash), then exact lines. Lines come last because every copy of a line
that occurs twice goes: two copies of one page would take all of each other's text.

    sign    for every unit: URL hashes, LSH keys and shingles                    (parallel; done once for a unit)
    match   for every range of LSH keys: pairs of near-duplicates                (parallel; clusters: one process)
    lines   for every unit: hashes of the lines of what is left                  (parallel)
    count   for every range of line hashes: those that occur more than once      (parallel)
    shards  for every unit: the result, without those documents and lines        (parallel)

What is complete is not done again; more input files, or other settings, redo all but `sign`.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from cs336_basics.command_line import UsageError
from cs336_data.dedup import matching, repeated_lines
from cs336_data.dedup.line_hashes import line_hashes
from cs336_data.pipeline.dedup_settings import LINES, NEAR, URLS, DedupSettings
from cs336_data.pipeline.dedup_work import NO_URL, HashLines, MatchPartition, Partition, RepeatedPartition, SignUnit
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.filtering import FilterSettings
from cs336_data.pipeline.inputs import Unit
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.markers import read_marker, write_json, write_marker
from cs336_data.pipeline.shards import Removal, WriteShard
from cs336_data.pipeline.summary import Summary

_T = TypeVar("_T")


class Deduplication:
    """The stage over all units.

    Args:
        engine: what the work runs on.
        layout: the run's folder.
        settings: how to deduplicate.
        filtering: the first stage's settings, on which its documents depend.
    """

    def __init__(self, engine: Engine, layout: Layout, settings: DedupSettings, filtering: FilterSettings) -> None:
        self._engine, self._layout, self._settings, self._filtering = engine, layout, settings, filtering

    def execute(self, units: Sequence[Unit]) -> list[Summary]:
        """Write the shards of these units, and no others; what they came to.

        Raises:
            UsageError: a unit's work failed (a full disk, a process that died), so that the result is not complete.
        """
        version, stages, layout = self._version(units), self._settings.stages, self._layout
        done = {unit.key: read_marker(layout.shard_marker(unit.key), version) for unit in units}
        missing = [unit for unit in units if done[unit.key] is None]
        if len(missing) == len(units):
            layout.remove_final()
        summaries = []
        if URLS in stages:
            summaries += self._sign(units)
            summaries.append(self._once("match", version, lambda: self._match(units)))
        if LINES in stages:
            summaries.append(self._once("count", version, lambda: self._count_lines(units)))
        write_shard = WriteShard(
            layout,
            version,
            self._filtering.keep_rejected,
            removes_documents=URLS in stages,
            repeated_lines=layout.repeated_lines if LINES in stages else None,
            min_words=self._settings.min_words,
        )
        done |= self._run("writing shards", write_shard, missing)
        layout.remove_final_except([unit.key for unit in units])
        return [*summaries, *(done[unit.key] for unit in units)]

    def _sign(self, units: Sequence[Unit]) -> list[Summary]:
        sign = SignUnit(self._layout, self._settings)
        done = {unit.key: read_marker(self._layout.sign_marker(unit.key), sign.version(unit)) for unit in units}
        done |= self._run("signing", sign, [unit for unit in units if done[unit.key] is None])
        return [done[unit.key] for unit in units]

    def _match(self, units: Sequence[Unit]) -> Summary:
        """Decide which documents go, and write each unit's list of them."""
        summary = Summary()
        identities = [np.load(self._layout.identities(unit.key)) for unit in units]
        starts = np.cumsum([0, *map(len, identities)])
        ids, urls = np.concatenate([np.empty((0, 2), np.uint64), *identities]).T
        original = _first_of_each_url(urls)
        removals = _removals(URLS, original, ids, "the same URL as document {}")
        if NEAR in self._settings.stages:
            clusters = self._near_duplicates(units, len(ids), summary)
            original = _first_alive(clusters, original == np.arange(len(ids)))
            removals |= _removals(NEAR, original, ids, "a near-duplicate of document {}")
        by_unit: dict[int, dict[int, Removal]] = defaultdict(dict)
        for document, removal in removals.items():
            unit = int(np.searchsorted(starts, document, side="right")) - 1
            by_unit[unit][document - int(starts[unit])] = removal
        for number, unit in enumerate(units):
            write_json(self._layout.removals(unit.key), by_unit[number])
        return summary

    def _near_duplicates(self, units: Sequence[Unit], count: int, summary: Summary) -> Int64[np.ndarray, " documents"]:
        batches = [self._layout.signed(unit.key) for unit in units]
        partitions = _partitions(matching.partition_count(batches))
        work = MatchPartition(batches, self._settings.jaccard_threshold, len(partitions))
        results = self._run("matching", work, partitions)
        summary.seconds[NEAR] += sum(result.seconds for result in results.values())
        return matching.join_matches(count, (result.value for result in results.values()))

    def _count_lines(self, units: Sequence[Unit]) -> Summary:
        """Find the lines that occur more than once, and write the set of them."""
        hashed = self._run("hashing lines", HashLines(self._layout), units)
        runs = [self._layout.line_run(unit.key) for unit in units]
        partitions = _partitions(repeated_lines.partition_count(runs))
        counted = self._run("counting lines", RepeatedPartition(runs, len(partitions)), partitions)
        repeated = np.concatenate([counted[partition.key].value for partition in partitions])
        # Empty lines separate paragraphs; that they repeat says nothing.
        repeated_lines.RepeatedLines(repeated[repeated != line_hashes("\n")]).save(self._layout.repeated_lines)
        summary = Summary()
        summary.seconds[LINES] = sum(result.seconds for result in (*hashed.values(), *counted.values()))
        return summary

    def _once(self, stage: str, version: str, work: Callable[[], Summary]) -> Summary:
        """The summary of a stage over all units, which is done unless its marker says that it is."""
        marker = self._layout.stage_marker(stage)
        summary = read_marker(marker, version)
        if summary is None:
            summary = work()
            write_marker(marker, version, summary)
        return summary

    def _run(self, title: str, function: Callable[[Any], _T], units: Sequence[Any]) -> dict[str, _T]:
        results = self._engine.run(title, function, units)
        for key, reason in results.failed.items():
            raise UsageError(f"{title} failed for {key} ({reason}): run the same command again to go on")
        return results.done

    def _version(self, units: Sequence[Unit]) -> str:
        """A digest of all that the result depends on."""
        parts = [[[unit.key, unit.version] for unit in units], self._filtering.as_json(), self._settings.as_json()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _first_of_each_url(urls: UInt64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """For each document the first with the same URL; itself for those without."""
    _, first, group = np.unique(urls, return_index=True, return_inverse=True)
    return np.where(urls == NO_URL, np.arange(len(urls)), first[group])


def _first_alive(clusters: Int64[np.ndarray, " n"], is_alive: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """For each document that is alive the first such of its cluster; itself for the others."""
    result = np.arange(len(clusters))
    alive = np.flatnonzero(is_alive)
    _, first, group = np.unique(clusters[alive], return_index=True, return_inverse=True)
    result[alive] = alive[first[group]]
    return result


def _removals(
    stage: str, original: Int64[np.ndarray, " n"], ids: UInt64[np.ndarray, " n"], reason: str
) -> dict[int, Removal]:
    """The documents that are not their own original."""
    return {
        int(document): Removal(stage, reason.format(f"{int(ids[original[document]]):016x}"))
        for document in np.flatnonzero(original != np.arange(len(original)))
    }


def _partitions(count: int) -> list[Partition]:
    return [Partition(f"{number:05}", number) for number in range(count)]
