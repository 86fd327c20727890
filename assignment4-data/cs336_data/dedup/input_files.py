"""The files that a deduplication reads: checked, in an order that does not depend on the caller's, in batches."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cs336_basics.command_line import UsageError

_BATCH_BYTES = 64 * 2**20
_BATCH_FILES = 2000
"""A batch is a task of a second or more: Dask takes 15 ms for one, Slurm seconds."""
_BLOCK_BYTES = 64 * 2**20


def check_inputs(input_files: Sequence[str | os.PathLike], output_directory: str | os.PathLike) -> list[Path]:
    """The files, sorted by name; each will be written under its name in the output folder.

    Raises:
        UsageError: a file does not exist, two have the same name, or one lies in the output folder.
    """
    by_name: dict[str, Path] = {}
    output = Path(output_directory).resolve()
    is_output = functools.cache(lambda folder: folder.resolve() == output)
    for path in map(Path, input_files):
        if not path.is_file():
            raise UsageError(f"input file {path} does not exist, or is a folder")
        if path.name in by_name:
            raise UsageError(
                f"{by_name[path.name]} and {path} have the same name, {path.name!r}: "
                f"every input needs a name of its own, under which it is written to {output_directory}"
            )
        if is_output(path.parent):
            raise UsageError(f"input file {path} lies in the output folder {output_directory}: give another one")
        by_name[path.name] = path
    return [by_name[name].absolute() for name in sorted(by_name)]


def batches(files: Sequence[Path]) -> list[list[Path]]:
    """The files in order, cut into lists of about the same work."""
    result: list[list[Path]] = []
    room = 0
    for path in files:
        size = path.stat().st_size
        if not result or size > room or len(result[-1]) == _BATCH_FILES:
            result.append([])
            room = _BATCH_BYTES
        result[-1].append(path)
        room -= size
    return result


def read_line_blocks(path: Path) -> Iterator[bytes]:
    """The file's content, a block of whole lines at a time; longer if a single line is."""
    with open(path, "rb") as file:
        # Room for a whole block would be taken for the smallest of files.
        block_bytes = min(_BLOCK_BYTES, os.fstat(file.fileno()).st_size + 1)
        while block := file.read(block_bytes):
            yield block if block.endswith(b"\n") else block + file.readline()
