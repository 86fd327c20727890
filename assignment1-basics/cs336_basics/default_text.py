"""The text that commands train on unless told otherwise: TinyStories if it was downloaded, else generated stories.

`cs336 data get tinystories-train` and `cs336 data get tinystories-valid` put the real thing into the data folder.
"""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path

from cs336_basics.atomic_file import atomic_write
from cs336_basics.stories import generate_stories, write_stories

TINYSTORIES_TRAIN = "TinyStoriesV2-GPT4-train.txt"
TINYSTORIES_VALID = "TinyStoriesV2-GPT4-valid.txt"
TRAIN_SEED, VALID_SEED = 336, 337
TRAIN_BYTES, VALID_BYTES = 10_000_000, 500_000


def default_text_files(
    data_dir: str | os.PathLike = "data", train_bytes: int = TRAIN_BYTES, valid_bytes: int = VALID_BYTES
) -> tuple[Path, Path]:
    """The training and the validation text in `data_dir`; generated stories are written there if TinyStories is not.

    Args:
        data_dir: the folder of the texts, made if it is missing.
        train_bytes: size of the generated training text in bytes; downloaded files are taken as they are.
        valid_bytes: the same for the validation text.

    Returns:
        The paths of the training and of the validation text.
    """
    folder = Path(data_dir)
    downloaded = folder / TINYSTORIES_TRAIN, folder / TINYSTORIES_VALID
    if all(path.is_file() for path in downloaded):
        return downloaded
    return story_files(folder, train_bytes, valid_bytes, f"no TinyStories in {folder}: ")


def story_files(folder: Path, train_bytes: int, valid_bytes: int, reason: str = "") -> tuple[Path, Path]:
    """Files of generated stories in `folder`, one for training and one for validation.

    They are written once and used again as long as they are what the present generator would write. Any writing is
    announced on standard error.

    Args:
        folder: where they are, made if it is missing.
        train_bytes: size of the training text in bytes.
        valid_bytes: the same for the validation text.
        reason: why stories are taken; begins the announcement.
    """
    return (
        _stories_file(folder / "stories-train.txt", train_bytes, TRAIN_SEED, reason),
        _stories_file(folder / "stories-valid.txt", valid_bytes, VALID_SEED, reason),
    )


def _stories_file(path: Path, num_bytes: int, seed: int, reason: str) -> Path:
    """The file of generated stories at `path`, written unless its record says that it is there already."""
    record_path = path.with_suffix(".json")
    first_story = next(generate_stories(seed))
    # The first story stands for the generator: when the grammar changes, so does it.
    wanted = {"seed": seed, "num_bytes": num_bytes, "first_story_sha256": sha256(first_story.encode()).hexdigest()}
    record = _read_record(record_path)
    if path.is_file() and record == wanted | {"file_bytes": path.stat().st_size}:
        return path
    print(f"{reason}writing {num_bytes / 1e6:g} MB of generated stories to {path}", file=sys.stderr)
    write_stories(path, num_bytes, seed)
    with atomic_write(record_path, "w") as file:
        json.dump(wanted | {"file_bytes": path.stat().st_size}, file, indent=1)
    return path


def _read_record(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
