"""What a unit's work came to: counts, seconds and examples, small enough to keep for every unit."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

EXAMPLES_PER_KIND = 3
_EXAMPLE_CHARACTERS = 400


@dataclass
class Example:
    """A document of the report: `order` is a hash of its id, so that the smallest are a random sample.

    `kind` is the filter that rejected the document, or "" for a kept one.
    """

    order: int
    kind: str
    url: str
    text: str
    reason: str = ""


@dataclass
class Summary:
    """Counts of one unit, or of many added up.

    Attributes:
        pages: pages read.
        kept: documents that passed.
        removed: documents rejected, by filter.
        edited: documents that a filter changed and kept, by filter.
        seconds: CPU time by stage: "read", "extract", each filter's name, "write".
        characters_read, characters_kept: of the text after extraction, and of what passed.
        skipped: sound records that are no pages, by reason.
        bad: damaged records, by reason.
        languages: documents by language, where a filter told.
        masked: what was masked, by kind.
        examples: some kept and some rejected documents.
    """

    pages: int = 0
    kept: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    edited: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    characters_read: int = 0
    characters_kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    def add_example(self, example: Example) -> None:
        """Keep the example if it is among the first of its kind."""
        example.text = example.text[:_EXAMPLE_CHARACTERS]
        same = sorted((e for e in (*self.examples, example) if e.kind == example.kind), key=lambda e: e.order)
        self.examples = [e for e in self.examples if e.kind != example.kind] + same[:EXAMPLES_PER_KIND]

    def as_json(self) -> dict[str, Any]:
        """The summary as an object of JSON."""
        # asdict() would rebuild a Counter from its pairs, and count those.
        plain = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}
        return plain | {"examples": [asdict(example) for example in self.examples]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Summary":
        """What `as_json` gave."""
        counters = {name: Counter(content) for name, content in value.items() if isinstance(content, dict)}
        return cls(**value | counters | {"examples": [Example(**example) for example in value["examples"]]})


def total(summaries: Iterable[Summary]) -> Summary:
    """The sum of all, with the first examples of each kind."""
    result = Summary()
    for summary in summaries:
        for name, value in vars(summary).items():
            if isinstance(value, Counter):
                getattr(result, name).update(value)
            elif isinstance(value, int):
                setattr(result, name, getattr(result, name) + value)
        for example in summary.examples:
            result.add_example(example)
    return result
