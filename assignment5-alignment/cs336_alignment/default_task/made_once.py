"""Models that are made at their first use, and kept in a folder."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

RECIPE_NAME = "recipe.json"
"""In a model's folder: what made it, and the seconds that took."""


def make_once(folder: Path, recipe: Mapping[str, object], make: Callable[[Path], Path], message: str) -> Path:
    """The model of `recipe` in `folder`, made there unless that very recipe made what lies there.

    Two processes may ask at once: one makes the model, the other waits for it. An interrupted one leaves nothing.

    Args:
        folder: the model's.
        recipe: all that determines the model, as JSON has it.
        make: is given an empty folder to work in, and returns the model's folder below it.
        message: tells the user what is being made.

    Returns:
        `folder`.
    """
    if recipe_in(folder) == recipe:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if recipe_in(folder) == recipe:
            return folder
        print(message, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            started, cpu_started = time.perf_counter(), time.process_time()
            made = make(Path(scratch))
            record = {
                "recipe": recipe,
                "seconds": round(time.perf_counter() - started, 2),
                "cpu_seconds": round(time.process_time() - cpu_started, 2),
            }
            (made / RECIPE_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return folder


def recipe_in(folder: Path) -> dict[str, object] | None:
    """What made the model in a folder; None if there is none."""
    try:
        return json.loads((folder / RECIPE_NAME).read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError):
        return None
