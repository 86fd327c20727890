"""The second pass of line deduplication: every file again, without the lines of a set."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cs336_basics.atomic_file import atomic_write
from cs336_data.dedup.input_files import batches, read_line_blocks
from cs336_data.dedup.line_hashes import LineSet, remove_lines
from cs336_data.dedup.stages import Stages, read_marker, write_marker


class LineCounts(NamedTuple):
    """What a line deduplication came to: lines read, and lines removed (all copies counted)."""

    lines: int
    removed: int


def write_without_lines(
    stages: Stages, files: list[Path], output_directory: str | os.PathLike, load: Callable[[], LineSet]
) -> LineCounts:
    """Write each file under its name, without the lines of the set.

    Args:
        stages: what the work runs on.
        files: the files, names all different.
        output_directory: where to write.
        load: opens the set in the worker's process.
    """
    output = Path(output_directory).absolute()
    tasks = {}
    for number, batch in enumerate(batches(files)):
        marker = stages.folder / f"written-{number}.json"
        tasks[marker] = partial(_write_batch, batch, output, load, marker)
    counts = [read_marker(marker) for marker in stages.run("writing files", tasks)]
    return LineCounts(sum(count["lines"] for count in counts), sum(count["removed"] for count in counts))


def _write_batch(files: Iterable[Path], output: Path, load: Callable[[], LineSet], marker: Path) -> None:
    lines = load()
    read = removed = 0
    for path in files:
        with atomic_write(output / path.name, flush_to_disk=False) as file:
            for block in read_line_blocks(path):
                result = remove_lines(block, lines)
                file.write(result.text)
                read += block.count(b"\n") + (not block.endswith(b"\n"))
                removed += len(result.removed)
    write_marker(marker, lines=read, removed=removed)
