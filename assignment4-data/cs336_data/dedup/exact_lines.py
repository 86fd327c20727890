"""Exact line deduplication of a corpus of any size: lines that occur more than once lose all their copies.

The first pass writes the hashes of all lines as sorted runs, whose partitions are then merged and counted; the second
pass writes the files. Memory is bounded by a batch of files and a partition of hashes, disk by 16 bytes per line.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np

from cs336_basics.atomic_file import atomic_write
from cs336_data.dedup.input_files import batches, check_inputs, read_line_blocks
from cs336_data.dedup.line_hashes import LINE_HASH, line_hashes
from cs336_data.dedup.line_removal import LineCounts, write_without_lines
from cs336_data.dedup.repeated_lines import (
    RepeatedLines,
    partition_count,
    repeated_in_partition,
    save_array,
    write_run,
)
from cs336_data.dedup.stages import Stages, read_marker, stages_in, write_marker

_HASHES_PER_RUN = 1 << 22
"""64 MB."""


def exact_line_deduplication(
    input_files: Sequence[str | os.PathLike],
    output_directory: str | os.PathLike,
    *,
    executor: Executor | None = None,
    progress: bool = False,
) -> LineCounts:
    """Write every input file under its own name, with only those lines that occur once in all the files.

    Lines compare as bytes, without their newlines (see `line_hashes`); what is kept is verbatim. A file that loses all
    its lines is written empty. Files appear whole or not at all; a run that was killed goes on where it was.

    Args:
        input_files: the corpus; the order does not matter.
        output_directory: where to write; made if it is missing.
        executor: runs the work in parallel; None is this process alone.
        progress: whether to show progress bars.

    Raises:
        UsageError: a file does not exist, two have the same name, or one lies in the output folder.
    """
    files = check_inputs(input_files, output_directory)
    with stages_in(output_directory, files, {"method": "exact"}, executor, progress) as stages:
        repeated = stages.folder / "repeated.npy"
        if not repeated.exists():
            _concatenate(repeated, _count(stages, _hash(stages, files)))
        return write_without_lines(stages, files, output_directory, partial(RepeatedLines.load, repeated))


def _hash(stages: Stages, files: list[Path]) -> list[Path]:
    """The first pass; the runs."""
    tasks = {}
    for number, batch in enumerate(batches(files)):
        stem = stages.folder / f"hashes-{number}"
        marker = stem.with_suffix(".json")
        tasks[marker] = partial(_hash_batch, batch, stem, marker)
    markers = stages.run("hashing lines", tasks)
    return [stages.folder / name for marker in markers for name in read_marker(marker)["runs"]]


def _hash_batch(files: Sequence[Path], stem: Path, marker: Path) -> None:
    runs: list[str] = []
    hashes, count = [np.empty(0, LINE_HASH)], 0

    def write() -> None:
        path = Path(f"{stem}-{len(runs)}.npy")
        write_run(path, np.concatenate(hashes))
        runs.append(path.name)

    for path in files:
        for block in read_line_blocks(path):
            hashes.append(line_hashes(block))
            count += len(hashes[-1])
            if count >= _HASHES_PER_RUN:
                write()
                del hashes[1:]
                count = 0
    write()
    write_marker(marker, runs=runs)


def _count(stages: Stages, runs: list[Path]) -> list[Path]:
    partitions = partition_count(runs)
    tasks = {}
    for number in range(partitions):
        output = stages.folder / f"repeated-{number}.npy"
        tasks[output] = partial(_count_partition, runs, number, partitions, output)
    return stages.run("counting lines", tasks)


def _count_partition(runs: Sequence[Path], partition: int, partitions: int, output: Path) -> None:
    save_array(output, repeated_in_partition(runs, partition, partitions))


def _concatenate(path: Path, parts: Sequence[Path]) -> None:
    """Write the arrays one after the other as one, a part in memory at a time."""
    total = sum(len(np.load(part, mmap_mode="r")) for part in parts)
    header = {"descr": LINE_HASH.str, "fortran_order": False, "shape": (total,)}
    with atomic_write(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.load(part).tobytes())
