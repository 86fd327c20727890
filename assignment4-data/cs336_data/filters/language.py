"""The language of a text: fastText's lid.176 where its file is present, else py3langid, which brings its own model.

lid.176 is a linear classifier over character n-grams for 176 languages (Joulin et al. 2017, "Bag of Tricks for
Efficient Text Classification", and fasttext.cc); py3langid is naive Bayes over byte n-grams (Lui and Baldwin 2012,
"langid.py").
"""

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document
from cs336_data.fasttext_model import classify_line, find_model, load_classifier, one_line

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNKNOWN = "unknown"
MODEL_NAMES = ("lid.176.bin", "lid.176.ftz")
NO_LANGUAGE = "zxx"
"""What ISO 639-2 and py3langid call a text without linguistic content."""
CHINESE = frozenset({"zh", "wuu", "yue"})
"""py3langid's labels within ISO 639's macrolanguage Chinese: Mandarin, Wu, Cantonese."""
READ_CHARACTERS = 20_000
"""A language shows in the first pages of a text; the rest of a long one is not read."""


def identify_language(text: str, model: str | os.PathLike | None = None) -> tuple[str, float]:
    """The language that a text is written in, and how sure that is.

    Args:
        text: any text; line breaks count as spaces, and only the first 20,000 characters are read.
        model: a fastText language model (`lid.176.bin` or `.ftz`); None takes the one in `data` or `data/models`, or
            py3langid's if there is none.

    Returns:
        An ISO 639 code ("en", "zh"; three letters where there are no two) and its probability in (0, 1]. A text without
        any letter is ("unknown", 1.0). py3langid's varieties of Chinese, which a few characters do not tell apart,
        count as one, "zh".

    Raises:
        UsageError: `model` is no file, or no fastText model.
    """
    return _identify(text, find_model(MODEL_NAMES) if model is None else os.fspath(model))


class LanguageFilter:
    """Keeps documents in the given languages; notes the language and its score in the metadata.

    Args:
        languages: ISO codes to keep; empty keeps all and only takes note.
        min_score: a document whose language is less probable than this goes, in (0, 1] or 0 for no limit.
        model: see `identify_language`; found once, when the filter is made.

    Raises:
        UsageError: `min_score` is outside [0, 1], or `model` is no fastText model.
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
        self.languages = frozenset([languages] if isinstance(languages, str) else languages)
        self.min_score = min_score
        self.model = find_model(MODEL_NAMES) if model is None else str(Path(model).resolve())
        if self.model:
            load_classifier(self.model)  # fails here rather than in the workers

    def __call__(self, document: Document) -> Decision:
        """Keep the document if its language is wanted and sure enough."""
        language, score = _identify(document.text, self.model)
        metadata = {"language": language, "language_score": score}
        if self.languages and language not in self.languages:
            wanted = ", ".join(sorted(self.languages))
            return Decision(False, f"language {language} with score {score:.2f}, wanted: {wanted}", metadata=metadata)
        if score < self.min_score:
            reason = f"language {language} with score {score:.2f}, at least {self.min_score:g} is needed"
            return Decision(False, reason, metadata=metadata)
        return Decision(True, metadata=metadata)


def _identify(text: str, path: str | None) -> tuple[str, float]:
    """See `identify_language`; without a path, py3langid's model is taken."""
    text = text[:READ_CHARACTERS]
    if not any(character.isalpha() for character in text):
        return UNKNOWN, 1.0
    line = one_line(text)
    if path:
        return classify_line(path, line) or (UNKNOWN, 1.0)  # None: no known n-gram
    scores = dict(_py3langid().rank(line))
    scores["zh"] = sum(scores.pop(variety) for variety in CHINESE)
    language, score = max(scores.items(), key=lambda item: item[1])
    # Products of small probabilities underflow to 0.
    return (UNKNOWN if language == NO_LANGUAGE else language), min(max(float(score), sys.float_info.min), 1.0)


@cache
def _py3langid() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
