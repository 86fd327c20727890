"""Quality: does a text read like a page that Wikipedia cites, or like any page of a crawl?

The classifier of GPT-3 (Brown et al. 2020, appendix A) and LLaMA (Touvron et al. 2023): works of reference against
Common Crawl. Here it is a fastText classifier where one was trained, else the model of text statistics that comes with
the package (`quality_model.py`).
"""

import os
from pathlib import Path
from typing import ClassVar

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document
from cs336_data.fasttext_model import check_labels, classify_line, find_model
from cs336_data.quality_model import load_model, packaged_model, reference_probability, strongest_statistics

WIKI, CC = "wiki", "cc"
MODEL_NAMES = ("quality.bin", "quality.json")


def classify_quality(text: str, model: str | os.PathLike | None = None) -> tuple[str, float]:
    """Whether a text is like a work of reference ("wiki") or like any page of a crawl ("cc").

    Args:
        text: any text.
        model: a fastText classifier with these labels (`.bin`, `.ftz`) or a model of statistics (`.json`); None takes
            `quality.bin` or `quality.json` in `data` or `data/models`, else the model of the package.

    Returns:
        The label and its probability in (0, 1].

    Raises:
        UsageError: `model` is no such model.
    """
    probability = _wiki_probability(text, _checked(model))
    return (WIKI, probability) if probability >= 0.5 else (CC, 1.0 - probability)


class QualityFilter:
    """Rejects documents unlike works of reference.

    Args:
        min_score: the least probability of "wiki" that stays, in [0, 1]. The default keeps nearly all works of
            reference and about 40 % of a crawl; 0.5 keeps what is more like reference than like a crawl.
        model: see `classify_quality`; found once, when the filter is made.

    Raises:
        UsageError: `min_score` is outside [0, 1], or `model` is no such model.
    """

    name: ClassVar[str] = "quality"

    def __init__(self, min_score: float = 0.1, model: str | os.PathLike | None = None) -> None:
        if not 0 <= min_score <= 1:
            raise UsageError(f"min_score {min_score} is out of range: it must be from 0 to 1")
        self.min_score = min_score
        self.model = _checked(model)

    def __call__(self, document: Document) -> Decision:
        """Keep the document if it is enough like a work of reference."""
        score = _wiki_probability(document.text, self.model)
        metadata = {"quality_score": score}
        if score >= self.min_score:
            return Decision(True, metadata=metadata)
        reason = f"wiki with score {score:.2g}, at least {self.min_score:g} is needed"
        if _is_statistical(self.model) and (against := strongest_statistics(self.model, document.text)):
            reason += f" (most against it: {', '.join(name.replace('_', ' ') for name, _ in against)})"
        return Decision(False, reason, metadata=metadata)


def _is_statistical(path: str) -> bool:
    return path.endswith(".json")


def _checked(model: str | os.PathLike | None) -> str:
    """The model's absolute path; it is loaded once, so that a bad one shows at once."""
    path = find_model(MODEL_NAMES) or packaged_model() if model is None else str(Path(model).resolve())
    if _is_statistical(path):
        load_model(path)
    else:
        check_labels(path, (WIKI, CC))
    return path


def _wiki_probability(text: str, path: str) -> float:
    if _is_statistical(path):
        return reference_probability(path, text)
    if (answer := classify_line(path, text)) is None:
        return 0.0
    label, score = answer
    return score if label == WIKI else 1.0 - score
