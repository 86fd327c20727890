"""Random samples of a run's documents: some of those kept, and some of those that each filter has rejected."""

import heapq
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash
from tqdm import tqdm

from cs336_basics.command_line import UsageError
from cs336_data.pipeline.compressed_json import DamagedFileError, is_json_lines, read_lines

KEPT = ""
"""The kind of the documents that no filter has rejected."""


@dataclass
class Samples:
    """What was drawn, and from how much.

    Attributes:
        records: the drawn records, as the pipeline writes them, in random order.
        counts: how many documents there are of each kind: `KEPT`, or the name of the filter that rejected them.
        num_damaged: lines and ends of files that hold no record.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    num_damaged: int = 0


def document_files(inputs: Iterable[Path]) -> list[Path]:
    """The files of documents: of a run's folder those in `kept` and `rejected`, of another folder all, or files.

    Raises:
        UsageError: a path is not there or no file of documents, or a folder holds none.
    """
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            folders = [path / name for name in ("kept", "rejected") if (path / name).is_dir()] or [path]
            found = sorted(file for folder in folders for file in folder.iterdir() if is_json_lines(file))
            if not found:
                raise UsageError(f"there are no documents in {path}: scripts/filter_cc.py --out {path} puts some there")
            files += found
        elif not path.is_file():
            raise UsageError(f"there is no file or folder {path}")
        elif not is_json_lines(path):
            raise UsageError(f"{path} is no file of documents: give .jsonl, .jsonl.gz or .jsonl.zst files")
        else:
            files.append(path)
    return files


def draw_samples(files: Iterable[Path], per_kind: int, seed: int = 0, progress: bool = False) -> Samples:
    """Draw up to `per_kind` documents of each kind, reading every file once and holding only what is drawn.

    Those are drawn whose line has the smallest hash, so the order of the files does not matter.

    Args:
        files: JSON Lines of the pipeline, or of any objects with "text"; those with a "filter" were rejected by it.
        per_kind: the most documents of each kind.
        seed: of the hash (XXH3, 64 bits); another one draws other documents.
        progress: show a progress bar.
    """
    samples = Samples()
    drawn: dict[str, list[tuple[int, bytes]]] = {}  # heaps with the greatest hash first, as its negative
    for path in tqdm(list(files), desc="reading", unit="file", disable=not progress):
        try:
            for _, line in read_lines(path):
                record = _parse(line)
                if record is None:
                    samples.num_damaged += bool(line.strip())
                    continue
                kind = _kind(record)
                samples.counts[kind] += 1
                heap = drawn.setdefault(kind, [])
                heapq.heappush(heap, (-xxhash.xxh3_64_intdigest(line, seed), line))
                if len(heap) > per_kind:
                    heapq.heappop(heap)
        except DamagedFileError:
            samples.num_damaged += 1
    everything = sorted((entry for heap in drawn.values() for entry in heap), reverse=True)
    samples.records = [json.loads(line) for _, line in everything]
    return samples


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("text"), str) else None


def _kind(record: dict[str, Any]) -> str:
    name = record.get("filter")
    return name if isinstance(name, str) else KEPT
