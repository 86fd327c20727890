"""fastText classifiers (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"): load, ask, train.

fastText itself is the library; what is added is what its users trip over: labels without their prefix, line breaks
inside texts, probabilities a little above 1, files that are no models, and trainings that run into NaN.
"""

import os
import sys
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError

LABEL = "__label__"
MODEL_FOLDERS = ("data", "data/models")
ATTEMPTS = 4


def find_model(names: Iterable[str], folders: Iterable[str] = MODEL_FOLDERS) -> str | None:
    """The absolute path of the first of these files that is in the data folder; None if there is none."""
    folders = tuple(folders)
    paths = (Path(folder, name) for name in names for folder in folders)
    return next((str(path.resolve()) for path in paths if path.is_file()), None)


@lru_cache(maxsize=4)
def load_classifier(path: str) -> Any:
    """A fastText model; loaded once per process.

    Raises:
        UsageError: the file is missing, or no fastText model.
    """
    import fasttext

    if not Path(path).is_file():
        raise UsageError(f"fastText model {path!r} is no file")
    try:
        return fasttext.load_model(path)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UsageError(f"{path!r} is no fastText model: {error}") from None


def check_labels(path: str, labels: Iterable[str]) -> None:
    """See that a model tells these labels apart.

    Raises:
        UsageError: it has others; or see `load_classifier`.
    """
    wanted = set(labels)
    found = {label.removeprefix(LABEL) for label in load_classifier(path).get_labels()}
    if found != wanted:
        raise UsageError(f"model {path!r} has the labels {sorted(found)[:5]}, needed are {sorted(wanted)}")


def classify_line(path: str, text: str) -> tuple[str, float] | None:
    """The likeliest label of a text, as one line, and its probability in (0, 1]; None if no word of it is known."""
    labels, scores = load_classifier(path).predict(one_line(text))
    if not labels:
        return None
    return labels[0].removeprefix(LABEL), min(max(float(scores[0]), sys.float_info.min), 1.0)


def one_line(text: str) -> str:
    """The text on one line, as fastText reads it, and in characters that it can encode."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ").split())


def train_classifier(
    examples: Iterable[tuple[str, str]],
    out: str | os.PathLike,
    *,
    learning_rate: float = 0.5,
    epochs: int = 10,
    word_ngrams: int = 2,
    dimension: int = 32,
    buckets: int = 200_000,
    min_count: int = 2,
    threads: int = 1,
    seed: int = 0,
) -> float:
    """Train a fastText classifier and write it to a file, whole or not at all.

    Where the training runs into NaN, it is tried again with half the learning rate.

    Args:
        examples: labels and texts.
        out: the model's file.
        learning_rate: of stochastic gradient descent, falling linearly to 0.
        epochs: passes over the examples.
        word_ngrams: longest run of words that is a feature.
        dimension: size of the vectors.
        buckets: how many hash buckets the runs of words share.
        min_count: rarer words are left out.
        threads: with 1 the same seed gives the same model.
        seed: of the vectors' start.

    Returns:
        The learning rate that it took.

    Raises:
        UsageError: a number is out of range, there are fewer than two labels, or each attempt ran into NaN.
    """
    import fasttext

    if learning_rate <= 0:
        raise UsageError(f"learning_rate is {learning_rate}: it must be greater than 0")
    for name, value in (("epochs", epochs), ("threads", threads)):
        if value < 1:
            raise UsageError(f"{name} is {value}: at least 1 is needed")

    with tempfile.TemporaryDirectory() as folder:
        path, labels = Path(folder, "examples.txt"), set()
        with open(path, "w", encoding="utf-8") as file:
            for label, text in examples:
                labels.add(label)
                file.write(f"{LABEL}{label} {one_line(text)}\n")
        if len(labels) < 2:
            raise UsageError(f"the examples have the labels {sorted(labels)}; at least two different ones are needed")
        for attempt in range(ATTEMPTS):
            rate = learning_rate / 2**attempt
            try:
                model = fasttext.train_supervised(
                    str(path),
                    lr=rate,
                    epoch=epochs,
                    wordNgrams=word_ngrams,
                    dim=dimension,
                    bucket=buckets,
                    minCount=min_count,
                    thread=threads,
                    seed=seed,
                    verbose=0,
                )
            except RuntimeError as error:
                if "NaN" not in str(error):
                    raise UsageError(f"fastText cannot train on these examples: {error}") from None
                continue
            _save(model, out, Path(folder, "model.bin"))
            return rate
    raise UsageError(f"the training ran into NaN at each learning rate from {learning_rate} down to {rate}")


def _save(model: Any, out: str | os.PathLike, scratch: Path) -> None:
    model.save_model(str(scratch))
    with atomic_write(out) as file:
        file.write(scratch.read_bytes())
    load_classifier.cache_clear()  # the file may have been another model
