"""What goes through the filters: a document, and what a filter decides about it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class Span(NamedTuple):
    """A stretch of a text that a decision rests on, or that was masked: characters `start` up to `end`, and why."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Document:
    """One text and where it comes from.

    Attributes:
        text: the text as it stands now: a filter that masks or removes lines hands on an edited copy.
        url: the address of the page; empty where there is none.
        source: the file it was read from.
        offset: its record's place in that file, in bytes; with `source` it identifies the document.
        metadata: what filters found out on the way (language, scores, counts of masks), by name.
    """

    text: str
    url: str = ""
    source: str = ""
    offset: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """A filter's verdict.

    Attributes:
        keep: whether the document stays.
        reason: why not: one short phrase with the figure that decided ("12 words, at least 50 are needed"); empty for
            a document that stays.
        text: the text to go on with, where the filter edits it; None leaves it as it is.
        spans: what the decision rests on. They refer to the text that came in; for a filter that masks, to `text`.
        metadata: what to remember about the document (scores, a language, counts).
    """

    keep: bool
    reason: str = ""
    text: str | None = None
    spans: tuple[Span, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


class Filter(Protocol):
    """A rule or a model that keeps, edits or rejects documents. Filters pickle, so that they reach worker processes."""

    name: str

    def __call__(self, document: Document) -> Decision:
        """Decide about one document; never raises for any text."""
        ...
