"""The filters of a run, in order, built from their names and options."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from cs336_data.document import Decision, Document, Filter


class FilterSpec(NamedTuple):
    """A filter by its registered name, and the options of its factory."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()


class Verdict(NamedTuple):
    """What the chain made of a document.

    Attributes:
        document: the document as it stood when the chain ended: for a rejected one, as the rejecting filter saw it.
        rejected_by: the filter's name; None for a kept document.
        decision: the rejecting filter's decision.
        edited_by: the filters that changed the text.
    """

    document: Document
    rejected_by: str | None
    decision: Decision
    edited_by: tuple[str, ...]


class Chain:
    """Runs documents through filters until one rejects, and counts the seconds that each takes."""

    def __init__(self, filters: Sequence[tuple[str, Filter]]) -> None:
        self._filters = filters

    def warm_up(self) -> None:
        """Have every filter load its model now, so that loading counts as no document's time."""
        for _, decide in self._filters:
            decide(Document("A text."))

    def __call__(self, document: Document, seconds: Counter[str]) -> Verdict:
        edited: tuple[str, ...] = ()
        decision = Decision(True)
        for name, decide in self._filters:
            start = time.thread_time()
            decision = decide(document)
            seconds[name] += time.thread_time() - start
            if decision.metadata:
                document = replace(document, metadata={**document.metadata, **decision.metadata})
            if not decision.keep:
                return Verdict(document, name, decision, edited)
            if decision.text is not None and decision.text != document.text:
                document = replace(document, text=decision.text)
                edited += (name,)
        return Verdict(document, None, decision, edited)


@lru_cache(maxsize=1)
def build_chain(specs: tuple[FilterSpec, ...]) -> Chain:
    """The chain of these filters; a worker process builds it once, models included.

    Raises:
        UsageError: a name is unknown, or an option is unknown or out of range.
    """
    from cs336_data.filters import make_filter

    chain = Chain([(spec.name, make_filter(spec.name, **dict(spec.options))) for spec in specs])
    chain.warm_up()
    return chain
