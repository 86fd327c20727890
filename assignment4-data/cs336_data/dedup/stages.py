"""Runs tasks on an executor, with files between the stages: what a killed run has done is not done again."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write

_FOLDER = ".deduplication"
_CONFIGURATION = "configuration.json"


@dataclass(frozen=True)
class Stages:
    """The stages of one run.

    Attributes:
        folder: for the files between the stages; the workers of the executor must see it under the same path.
        executor: what tasks run on; None is this process.
        progress: whether to show progress bars.
    """

    folder: Path
    executor: Executor | None
    progress: bool

    def run(self, title: str, tasks: Mapping[Path, Callable[[], None]]) -> list[Path]:
        """Run the tasks whose files are missing; all the files, in order.

        Args:
            title: for the progress bar.
            tasks: picklable calls, by the file that each of them writes last, atomically.
        """
        missing = [task for path, task in tasks.items() if not path.exists()]
        with tqdm(total=len(tasks), initial=len(tasks) - len(missing), desc=title, disable=not self.progress) as bar:
            if self.executor is None:
                for task in missing:
                    task()
                    bar.update()
            else:
                futures = [self.executor.submit(task) for task in missing]
                try:
                    for future in as_completed(futures):
                        future.result()
                        bar.update()
                finally:
                    for future in futures:
                        future.cancel()  # does nothing to those that are done
        return list(tasks)


@contextmanager
def stages_in(
    output_directory: str | os.PathLike,
    files: Sequence[Path],
    settings: Mapping[str, Any],
    executor: Executor | None,
    progress: bool,
) -> Iterator[Stages]:
    """Stages whose files lie in a hidden folder of the output folder; a run that ends well removes it.

    After one that did not, a run of the same files (by path, size and time of change) and settings goes on from there,
    and any other begins anew.
    """
    output = Path(output_directory).absolute()
    folder = output / _FOLDER
    configuration = {"settings": settings, "files": _digest(files)}
    if _read(folder / _CONFIGURATION) != configuration:
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_write(folder / _CONFIGURATION, "w") as file:
            json.dump(configuration, file)
    yield Stages(folder, executor, progress)
    shutil.rmtree(folder)


def write_marker(path: Path, **values: Any) -> None:
    """Say that a task is done, and what it came to."""
    with atomic_write(path, "w") as file:
        json.dump(values, file)


def read_marker(path: Path) -> dict[str, Any]:
    """What a task came to."""
    return json.loads(path.read_text(encoding="utf-8"))


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        state = path.stat()
        digest.update(os.fsencode(path) + f"\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
