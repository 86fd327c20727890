"""Line deduplication in a fixed amount of memory: two Bloom filters, "seen" and "seen again".

A line that the first filter knows already goes into the second one, and every line of the second one is removed. All
repeated lines are found; a line that occurs once is taken for a repeated one at no more than the rate that was asked
for: half of it for each filter. Compared with the exact way there are no files of hashes and no sorting; the first
pass runs in one process.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cs336_basics.command_line import UsageError
from cs336_data.dedup.bloom_filter import BloomFilter
from cs336_data.dedup.input_files import check_inputs, read_line_blocks
from cs336_data.dedup.line_hashes import line_hashes
from cs336_data.dedup.line_removal import LineCounts, write_without_lines
from cs336_data.dedup.stages import stages_in

DEFAULT_FALSE_POSITIVE_RATE = 1e-3


def bloom_line_deduplication(
    input_files: Sequence[str | os.PathLike],
    output_directory: str | os.PathLike,
    *,
    expected_lines: int | None = None,
    false_positive_rate: float = DEFAULT_FALSE_POSITIVE_RATE,
    executor: Executor | None = None,
    progress: bool = False,
) -> LineCounts:
    """As `exact_line_deduplication`, except that some lines that occur only once are removed too.

    Args:
        input_files: the corpus. Which lines are wrongly removed depends neither on the order nor on the executor,
            as files are read in the order of their names.
        output_directory: where to write; made if it is missing.
        expected_lines: different lines that the filters are sized for; more of them raise the rate. None counts all
            lines first, which is a pass of its own.
        false_positive_rate: the share of lines occurring once that may be removed. Each filter takes
            1.44 · log₂(2 / rate) bits per line: 4 bytes together for 0.001.
        executor: runs the second pass in parallel; None is this process alone.
        progress: whether to show progress bars.

    Raises:
        UsageError: as `exact_line_deduplication`, or a number is out of range.
    """
    if not 0 < false_positive_rate < 1:
        raise UsageError(f"false_positive_rate is {false_positive_rate}: it must lie between 0 and 1")
    files = check_inputs(input_files, output_directory)
    capacity = max(1, _count_lines(files)) if expected_lines is None else expected_lines
    again = BloomFilter.sized(capacity, false_positive_rate / 2)
    settings = {"method": "bloom", "capacity": capacity, "rate": false_positive_rate}
    with stages_in(output_directory, files, settings, executor, progress) as stages:
        path = stages.folder / "seen_again.npy"
        if not path.exists():
            _fill(again, BloomFilter.sized(capacity, false_positive_rate / 2), files, progress)
            again.save(path)
        return write_without_lines(stages, files, output_directory, partial(BloomFilter.load, path, again.probes))


def _count_lines(files: Sequence[Path]) -> int:
    return sum(block.count(b"\n") + (not block.endswith(b"\n")) for path in files for block in read_line_blocks(path))


def _fill(again: BloomFilter, seen: BloomFilter, files: Sequence[Path], progress: bool) -> None:
    for path in tqdm(files, desc="reading lines", unit="file", disable=not progress):
        for block in read_line_blocks(path):
            hashes = line_hashes(block)
            again.add(np.ascontiguousarray(hashes[seen.add(hashes)]))
