"""The language of a text: fastText's lid.176 where its file is present, else py3langid, which brings its own model.

lid.176 is a linear classifier over character n-grams for 176 languages (Joulin et al. 2017, "Bag of Tricks for
Efficient Text Classification", and fasttext.cc); py3langid is naive Bayes over byte n-grams (Lui and Baldwin 2012,
"langid.py").
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document

UNKNOWN = "unknown"
MODEL_NAMES = ("lid.176.bin", "lid.176.ftz")
MODEL_FOLDERS = ("data", "data/models")
READ_CHARACTERS = 20_000
"""A language shows in the first pages of a text; the rest of a long one is not read."""

Identifier = Callable[[str], tuple[str, float]]


def identify_language(text: str, model: str | os.PathLike | None = None) -> tuple[str, float]:
    """The language that a text is written in, and how sure that is.

    Args:
        text: any text; line breaks count as spaces, and only the first 20,000 characters are read.
        model: a fastText language model (`lid.176.bin` or `.ftz`); None takes the one in `data` or `data/models`, or
            py3langid's if there is none.

    Returns:
        An ISO 639 code ("en", "zh"; three letters where there are no two) and its probability in (0, 1]. A text without
        any letter is ("unknown", 1.0).

    Raises:
        UsageError: `model` is no file, or no fastText model.
    """
    text = text[:READ_CHARACTERS]
    if not any(character.isalpha() for character in text):
        return UNKNOWN, 1.0
    path = find_model() if model is None else os.fspath(model)
    language, score = _identifier(path)(" ".join(text.split()))
    # Float32 sums overshoot 1, and py3langid's products underflow to 0.
    return language, min(max(float(score), sys.float_info.min), 1.0)


def find_model() -> str | None:
    """The path of the fastText language model in the data folder, the more exact one first; None if there is none."""
    for folder in MODEL_FOLDERS:
        for name in MODEL_NAMES:
            if (path := Path(folder, name)).is_file():
                return str(path.resolve())
    return None


class LanguageFilter:
    """Keeps documents in the given languages; notes the language and its score in the metadata.

    Args:
        languages: ISO codes to keep; empty keeps all and only takes note.
        min_score: a document whose language is less probable than this goes, in (0, 1] or 0 for no limit.
        model: see `identify_language`; found once, when the filter is made.

    Raises:
        UsageError: `min_score` is outside [0, 1], or `model` is no file.
    """

    name: ClassVar[str] = "language"

    def __init__(
        self,
        languages: Sequence[str] | str = ("en",),
        min_score: float = 0.65,
        model: str | os.PathLike | None = None,
    ) -> None:
        if not 0 <= min_score <= 1:
            raise UsageError(f"min_score {min_score} is out of range: it must be from 0 to 1")
        if model is not None and not Path(model).is_file():
            raise UsageError(f"language model {os.fspath(model)!r} is no file")
        self.languages = frozenset([languages] if isinstance(languages, str) else languages)
        self.min_score = min_score
        self.model = find_model() if model is None else str(Path(model).resolve())

    def __call__(self, document: Document) -> Decision:
        """Keep the document if its language is wanted and sure enough."""
        # An empty path stands for "no file": what the data folder holds was settled when the filter was made.
        language, score = identify_language(document.text, self.model or "")
        metadata = {"language": language, "language_score": score}
        if self.languages and language not in self.languages:
            wanted = ", ".join(sorted(self.languages))
            return Decision(False, f"language {language} with score {score:.2f}, wanted: {wanted}", metadata=metadata)
        if score < self.min_score:
            reason = f"language {language} with score {score:.2f}, at least {self.min_score:g} is needed"
            return Decision(False, reason, metadata=metadata)
        return Decision(True, metadata=metadata)


@lru_cache(maxsize=4)
def _identifier(path: str | None) -> Identifier:
    """A function from a line of text to its language and probability; loaded once per process."""
    return _fasttext_identifier(path) if path else _py3langid_identifier()


def _fasttext_identifier(path: str) -> Identifier:
    import fasttext

    if not Path(path).is_file():
        raise UsageError(f"language model {path!r} is no file")
    try:
        model = fasttext.load_model(path)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{path!r} is no fastText model: {error}") from None

    def identify(line: str) -> tuple[str, float]:
        labels, scores = model.predict(line)
        if not labels:  # no known n-gram
            return UNKNOWN, 1.0
        return labels[0].removeprefix("__label__"), scores[0]

    return identify


def _py3langid_identifier() -> Identifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def identify(line: str) -> tuple[str, float]:
        language, score = model.classify(line)
        return (UNKNOWN if language == "zxx" else language), score  # zxx: "no linguistic content" in ISO 639-2

    return identify
