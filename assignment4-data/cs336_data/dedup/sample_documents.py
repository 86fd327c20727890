"""Documents with known repetitions, made on the spot: for the command's default run and for benchmarks."""

import itertools
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

from cs336_basics.atomic_file import atomic_write
from cs336_basics.stories import generate_stories

_STORIES = 1000
_LINES = 12
_NEAR_DUPLICATES, _COPIES = 0.15, 0.05
_BOILERPLATE = ("Read more stories like this one", "All rights reserved.", "Share this page with your friends")


def generate_documents(seed: int = 0) -> Iterator[str]:
    """Documents without end, of a dozen lines of two sentences each, some 250 words.

    Of the documents, 15 % are an earlier one with some words changed, 5 % are copies, and one of three lines of
    boilerplate ends each of the others.

    Args:
        seed: 0 or more; the same seed gives the same documents.
    """
    rng = random.Random(seed)
    stories = itertools.islice(generate_stories(seed), _STORIES)
    sentences = [sentence for story in stories for sentence in re.split(r"(?<=[.!?])\s+", story)]
    earlier: list[str] = []
    while True:
        kind = rng.random() if earlier else 1
        if kind < _COPIES:
            yield rng.choice(earlier)
        elif kind < _COPIES + _NEAR_DUPLICATES:
            yield _change_words(rng.choice(earlier), rng)
        else:
            halves = rng.choices(sentences, k=2 * _LINES)
            lines = map(" ".join, zip(halves[::2], halves[1::2], strict=True))
            document = "\n".join([*lines, rng.choice(_BOILERPLATE)]) + "\n"
            if len(earlier) < _STORIES:
                earlier.append(document)
            else:
                earlier[rng.randrange(_STORIES)] = document
            yield document


def write_documents(folder: str | os.PathLike, count: int, seed: int = 0) -> list[Path]:
    """Write so many documents as files, as far as they are not there yet; their paths."""
    paths = [Path(folder) / f"document_{number:06d}.txt" for number in range(count)]
    if all(path.exists() for path in paths):
        return paths
    for path, document in zip(paths, generate_documents(seed), strict=False):
        with atomic_write(path, "w", flush_to_disk=False) as file:
            file.write(document)
    return paths


def _change_words(document: str, rng: random.Random) -> str:
    """One to three words replaced."""
    words = document.split(" ")
    for _ in range(rng.randint(1, 3)):
        words[rng.randrange(len(words))] = f"word{rng.randrange(10**6)}"
    return " ".join(words)
