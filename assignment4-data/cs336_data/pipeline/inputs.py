"""The input files of a run: what the user's paths and globs stand for, and the work units they make."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from cs336_basics.command_line import UsageError


@dataclass(frozen=True)
class Unit:
    """A piece of work: one input file.

    Attributes:
        key: names the unit's files; the same in every run for the same path.
        path: the file as the user named it.
        size: bytes, as the file lies on the disk.
        modified_ns: when it was last changed, in nanoseconds since 1970.
    """

    key: str
    path: str
    size: int
    modified_ns: int

    @property
    def version(self) -> list[int]:
        """What changes when the file does."""
        return [self.size, self.modified_ns]


def find_units(patterns: Sequence[str | os.PathLike]) -> list[Unit]:
    """The units of files, folders (all files in them) and globs (`**` too), sorted by key and each once.

    Raises:
        UsageError: a path does not exist, or a glob or folder matches no file.
    """
    paths: dict[str, None] = {}
    for pattern in map(os.fspath, patterns):
        found = _expand(pattern)
        if not found:
            raise UsageError(f"no input file matches {pattern!r}: give files, folders or globs")
        paths.update(dict.fromkeys(found))
    units = {unit.key: unit for unit in map(_unit, paths)}
    return [units[key] for key in sorted(units)]


def _expand(pattern: str) -> list[str]:
    if os.path.isdir(pattern):
        return sorted(os.fspath(path) for path in Path(pattern).iterdir() if _is_input(path))
    if os.path.exists(pattern):
        return [pattern]
    return sorted(path for path in glob.glob(pattern, recursive=True) if _is_input(Path(path)))


def _is_input(path: Path) -> bool:
    return not path.name.startswith(".") and not path.is_dir()


def _unit(path: str) -> Unit:
    state = os.stat(path)
    place = xxhash.xxh64_hexdigest(os.fsencode(os.path.abspath(path)))[:10]
    return Unit(f"{Path(path).name.split('.')[0][:60]}-{place}", path, state.st_size, state.st_mtime_ns)
