"""How well filters do: precision and recall on labeled data, with counts and confidence intervals.

An evaluation is a function from `Settings` to measurements, listed in `EVALUATIONS`. A case is positive if the filter
ought to react (reject a document, find a number); it is found if the filter does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from cs336_basics.command_line import UsageError
from cs336_basics.confidence import Interval, wilson_interval
from cs336_data.document import Document, Filter
from cs336_systems.result_table import Cell

EVALUATIONS = {
    "rules": "cs336_data.labeled_data.pages:evaluate_rules",
    "language": "cs336_data.labeled_data.languages:evaluate_small_web",
    "udhr": "cs336_data.labeled_data.languages:evaluate_udhr",
    "pii": "cs336_data.labeled_data.personal_data:evaluate_list",
    "pii_pages": "cs336_data.labeled_data.personal_data:evaluate_small_web",
    "safety": "cs336_data.labeled_data.models:evaluate_safety",
    "tweets": "cs336_data.labeled_data.models:evaluate_tweets",
    "quality": "cs336_data.labeled_data.models:evaluate_quality",
    "quality_pages": "cs336_data.labeled_data.models:evaluate_quality_pages",
    "chain": "cs336_data.labeled_data.pages:evaluate_chain",
    "udhr_languages": "cs336_data.labeled_data.languages:evaluate_udhr_languages",
}
"""The evaluations by name, in the order of the table: module and function."""

HEADER = (
    "filter",
    "finds",
    "data",
    "positive",
    "negative",
    "missed",
    "false alarms",
    "precision",
    "precision from",
    "precision to",
    "recall",
    "recall from",
    "recall to",
)
"""Columns of the table; "from" and "to" bound 95 % confidence intervals."""


@dataclass(frozen=True)
class Settings:
    """What evaluations measure on.

    Attributes:
        num_pages: pages of the small web.
        seed: of the small web and of generated lists.
        shared_data: folder of labeled data that others made; None where there is none.
    """

    num_pages: int = 1000
    seed: int = 0
    shared_data: Path | None = None

    def __post_init__(self) -> None:
        if self.num_pages < 1:
            raise UsageError(f"{self.num_pages} pages are too few: at least 1 is needed")

    def shared_file(self, name: str) -> Path:
        """A file of the shared data.

        Raises:
            MissingData: it is not there.
        """
        if self.shared_data is None or not (path := self.shared_data / name).is_file():
            where = self.shared_data or "a folder of shared data"
            raise MissingData(f"{name} is not in {where}")
        return path


class MissingData(Exception):
    """The labeled data of an evaluation are not on this machine; says what is missing."""


class Case(NamedTuple):
    """A labeled case and what the filter made of it.

    Attributes:
        positive: whether the filter ought to react.
        found: whether it did.
        text: the case, for the list of errors.
        note: what the filter said, or what was expected.
    """

    positive: bool
    found: bool
    text: str
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """What a filter did on labeled cases.

    Attributes:
        filter: the filter's name.
        finds: what it ought to find.
        data: where the cases come from.
        true_positives: positive and found.
        false_positives: found, though negative: false alarms.
        false_negatives: positive, but missed.
        true_negatives: neither.
        errors: the false alarms and the missed cases.
    """

    filter: str
    finds: str
    data: str
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    errors: tuple[Case, ...] = ()

    @property
    def precision(self) -> float | None:
        """Share of positives among what was found; None if nothing was."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """Share of the positives that were found; None if there are none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def precision_interval(self) -> Interval | None:
        """95 % confidence interval of the precision."""
        return wilson_interval(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall_interval(self) -> Interval | None:
        """95 % confidence interval of the recall."""
        return wilson_interval(self.true_positives, self.true_positives + self.false_negatives)

    def row(self) -> tuple[Cell, ...]:
        """The measurement as a row under `HEADER`."""
        return (
            self.filter,
            self.finds,
            self.data,
            self.true_positives + self.false_negatives,
            self.false_positives + self.true_negatives,
            self.false_negatives,
            self.false_positives,
            self.precision,
            *(self.precision_interval or (None, None)),
            self.recall,
            *(self.recall_interval or (None, None)),
        )


def measure(filter_name: str, finds: str, data: str, cases: Iterable[Case]) -> Measurement:
    """Count cases.

    Args:
        filter_name: the filter's name.
        finds: what a positive case is.
        data: where the cases come from.
        cases: read once.
    """
    counts = {(positive, found): 0 for positive in (True, False) for found in (True, False)}
    errors = []
    for case in cases:
        counts[case.positive, case.found] += 1
        if case.positive != case.found:
            errors.append(case)
    return Measurement(
        filter_name,
        finds,
        data,
        true_positives=counts[True, True],
        false_positives=counts[False, True],
        false_negatives=counts[True, False],
        true_negatives=counts[False, False],
        errors=tuple(errors),
    )


def rejections(decide: Filter, labeled: Iterable[tuple[Document, bool]]) -> Iterable[Case]:
    """The cases of a filter that ought to reject the documents labeled True, and to keep the others."""
    for document, positive in labeled:
        decision = decide(document)
        yield Case(positive, not decision.keep, document.text, decision.reason or "kept")


def evaluate(names: Iterable[str], settings: Settings) -> tuple[list[Measurement], list[str]]:
    """Run evaluations.

    Args:
        names: some of `EVALUATIONS`.
        settings: what they measure on.

    Returns:
        The measurements, and for each evaluation that could not run, why.

    Raises:
        UsageError: a name is unknown.
    """
    measurements, left_out = [], []
    for name in names:
        if name not in EVALUATIONS:
            raise UsageError(f"evaluation {name!r} is unknown: it must be one of {', '.join(EVALUATIONS)}")
        module, _, function = EVALUATIONS[name].partition(":")
        run: Callable[[Settings], Iterable[Measurement]] = getattr(import_module(module), function)
        try:
            measurements.extend(run(settings))
        except MissingData as missing:
            left_out.append(f"{name} left out: {missing}")
    return measurements, left_out


def list_errors(measurement: Measurement, at_most: int, width: int = 160) -> str:
    """The first errors of a measurement, one a line, texts cut to `width` characters."""
    lines = [f"{measurement.filter}, {measurement.finds}, {measurement.data}: {len(measurement.errors)} errors"]
    for case in measurement.errors[:at_most]:
        text = " ".join(case.text.split())
        shown = text if len(text) <= width else f"{text[: width - 1]}…"
        lines.append(f"  {'missed' if case.positive else 'false alarm'}: {shown!r} ({case.note})")
    return "\n".join(lines)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
