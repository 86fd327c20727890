"""Work on a list, chunk by chunk, whose results are kept in a JSON Lines file so that a killed run goes on.

A chunk's lines are on disk before the next chunk begins; what a killed run left of a chunk is dropped and done again.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError

Item = TypeVar("Item")
Row = dict[str, Any]

SETTINGS_NAME = "settings.json"
RESULTS_NAME, TIMING_NAME, JUDGMENTS_NAME = "results.jsonl", "timing.jsonl", "judgments_{}.jsonl"
OWN_NAMES = (RESULTS_NAME, TIMING_NAME, JUDGMENTS_NAME.format("*"), SETTINGS_NAME)
"""What a run goes on from; other files in its folder are made anew, or somebody else's."""


def checksum(value: Any) -> str:
    """A checksum of a JSON value, in hexadecimal."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def run_folder(folder: Path, settings: Mapping[str, Any], overwrite: bool = False) -> Iterator[None]:
    """Hold a run's folder alone; what it holds must come from the same settings.

    Args:
        folder: made if it is missing.
        settings: whatever determines the results, as JSON values; kept in `settings.json`.
        overwrite: drop the results of other settings instead of refusing to mix them.

    Raises:
        UsageError: another process is at work there, or it holds results of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another run is at work in {folder}: wait for it or give another --out") from None
        path, wanted = folder / SETTINGS_NAME, json.loads(json.dumps(settings))
        if overwrite:
            for old in [name for pattern in OWN_NAMES for name in folder.glob(pattern)]:
                old.unlink()
        if path.exists():
            _compare(json.loads(path.read_text(encoding="utf-8")), wanted, folder)
        else:
            with atomic_write(path, "w") as file:
                json.dump(wanted, file, indent=1)
        yield


def _compare(found: Row, wanted: Row, folder: Path) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise UsageError(
                f"{folder} holds results of other settings: {name} was {found.get(name)!r} and is "
                f"{wanted.get(name)!r} now; give another --out, or --overwrite"
            )


def run_in_chunks(
    path: Path,
    items: Sequence[Item],
    chunk_size: int,
    work: Callable[[Sequence[Item]], list[Row]],
    *,
    description: str = "",
    progress: bool = True,
) -> list[Row]:
    """Do `work` on all items, chunk by chunk, but for those whose results are in `path`.

    Args:
        path: the JSON Lines file of the results, one line per item, in order.
        items: what to work on; the same list at every call.
        chunk_size: items at a time.
        work: gives one JSON object for each item of a chunk.
        description, progress: of the progress bar.

    Returns:
        The results of all items.

    Raises:
        UsageError: the file's lines are no JSON, or more than there are items.
    """
    if chunk_size < 1:
        raise UsageError(f"chunk_size is {chunk_size}; allowed are whole numbers from 1")
    done = _complete_rows(path, len(items), chunk_size)
    with (
        open(path, "ab") as file,
        tqdm(total=len(items), initial=len(done), desc=description, unit="example", disable=not progress) as bar,
    ):
        for start in range(len(done), len(items), chunk_size):
            chunk = items[start : start + chunk_size]
            rows = work(chunk)
            if len(rows) != len(chunk):
                raise ValueError(f"{len(rows)} results for {len(chunk)} items")
            file.write(b"".join(_line(row) for row in rows))
            file.flush()
            os.fsync(file.fileno())
            done += rows
            bar.update(len(chunk))
    return done


def _complete_rows(path: Path, num_items: int, chunk_size: int) -> list[Row]:
    """The results of whole chunks; the file is cut after them."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    if len(lines) > num_items:
        raise UsageError(f"{path} has {len(lines)} lines for {num_items} examples; give another --out, or --overwrite")
    if len(lines) < num_items:
        del lines[len(lines) // chunk_size * chunk_size :]
    os.truncate(path, sum(map(len, lines)))
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise UsageError(f"{path}:{number}: no JSON ({error}); give another --out, or --overwrite") from None
    return rows


def _line(row: Row) -> bytes:
    # A lone surrogate, which JSON can carry in but UTF-8 not out, becomes a question mark.
    return json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"
