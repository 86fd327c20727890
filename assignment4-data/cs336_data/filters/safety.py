"""What the filters for NSFW content and toxic speech share: a fastText classifier if there is one, else the lexicon."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, NamedTuple

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document, Span
from cs336_data.fasttext_model import check_labels, classify_line, find_model
from cs336_data.lexicon import count_words, find_terms, unsafe_probability

MAX_SPANS = 100


class Topic(NamedTuple):
    """One kind of unsafe content.

    Attributes:
        unsafe: the label of texts that have it.
        safe: the label of the others.
        models: file names of fastText classifiers with these two labels, the best first.
        categories: the categories of the lexicon that count.
    """

    unsafe: str
    safe: str
    models: tuple[str, ...]
    categories: Collection[str]

    @property
    def labels(self) -> tuple[str, str]:
        """Both labels."""
        return self.unsafe, self.safe


def classify(text: str, topic: Topic, model: str | os.PathLike | None = None) -> tuple[str, float]:
    """The label of a text and its probability.

    Args:
        text: any text.
        topic: what it may be.
        model: a fastText classifier with the topic's labels; None takes the one in `data` or `data/models`, or the
            lexicon if there is none.

    Returns:
        One of the topic's labels and its probability in (0, 1].

    Raises:
        UsageError: `model` is no fastText classifier with the topic's labels.
    """
    path = find_model(topic.models) if model is None else os.fspath(model)
    if path:
        check_labels(path, topic.labels)
    probability = _unsafe_probability(text, topic, path)
    # 1 - p may be 0 only for a classifier that says 1; then p is the answer.
    return (topic.unsafe, probability) if probability >= 0.5 else (topic.safe, 1.0 - probability)


def _unsafe_probability(text: str, topic: Topic, path: str | None) -> float:
    if not path:
        return unsafe_probability(find_terms(text), count_words(text), topic.categories)
    if (answer := classify_line(path, text)) is None:
        return 0.0
    label, score = answer
    return score if label == topic.unsafe else 1.0 - score


class SafetyFilter:
    """Rejects documents that a topic's classifier finds unsafe; the lexicon's terms are the spans to highlight.

    Args:
        max_score: the greatest probability of being unsafe that is let through, in [0, 1].
        model: see `classify`; found once, when the filter is made.

    Raises:
        UsageError: `max_score` is outside [0, 1], or `model` is no file.
    """

    name: ClassVar[str]
    topic: ClassVar[Topic]

    def __init__(self, max_score: float = 0.5, model: str | os.PathLike | None = None) -> None:
        if not 0 <= max_score <= 1:
            raise UsageError(f"max_score {max_score} is out of range: it must be from 0 to 1")
        if model is not None and not Path(model).is_file():
            raise UsageError(f"{self.topic.unsafe} model {os.fspath(model)!r} is no file")
        self.max_score = max_score
        self.model = find_model(self.topic.models) if model is None else str(Path(model).resolve())
        if self.model:
            check_labels(self.model, self.topic.labels)

    def __call__(self, document: Document) -> Decision:
        """Keep the document if it is safe enough."""
        matches = [each for each in find_terms(document.text) if each.term.category in self.topic.categories]
        if self.model:
            score = _unsafe_probability(document.text, self.topic, self.model)
        else:
            score = unsafe_probability(matches, count_words(document.text), self.topic.categories)
        metadata = {f"{self.topic.unsafe}_score": score}
        if score <= self.max_score:
            return Decision(True, metadata=metadata)
        spans = tuple(Span(each.start, each.end, each.term.category) for each in matches[:MAX_SPANS])
        by = (
            f"the lexicon (terms found: {len(matches)})"
            if not self.model
            else f"the classifier {Path(self.model).name}"
        )
        reason = f"{self.topic.unsafe} with score {score:.2f} by {by}, at most {self.max_score:g} is allowed"
        return Decision(False, reason, spans=spans, metadata=metadata)
