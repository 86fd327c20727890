"""What a benchmark consists of: where its examples come from, how they are asked, and how an answer is graded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

AnswerFormat = Literal["r1_zero", "boxed", "last_number", "option_letter"]
"""Where a response gives its answer: in <answer> tags, in \\boxed{}, as its last number, as the letter of an option."""


@dataclass(frozen=True)
class Example:
    """One question of a benchmark.

    Attributes:
        id: what the file calls it, else its place in the file, from 0.
        fields: what fills the prompt template.
        gold: the right answer as the graders want it; None where only a judge can tell.
        groups: what it belongs to, for breakdowns: a subject, a level, an area of harm.
        record: what the file says besides, for the output.
    """

    id: str
    fields: Mapping[str, Any]
    gold: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """What a response is worth.

    Attributes:
        parsed: the answer found in it, None if there is none in the wanted form.
        format_reward: 1 if it has the wanted form, else 0.
        answer_reward: 1 if the answer is right, else 0.
    """

    parsed: str | None
    format_reward: float
    answer_reward: float


Grader = Callable[[Example, str], Grade]


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: as `--task` takes it.
        load: reads its files.
        own_examples: a few of ours, for runs without data.
        prompt: the template asked for unless told otherwise.
        wrapper: the template around it, none if empty.
        graders: by the form of the answer; empty if only a judge can grade.
        groups: names of the groups to break figures down by, where the examples have them.
        judging: what a judge is to say: which answer is better, or whether it is safe; None if graders can tell.
        default_format: the form of the answer under a prompt that does not say so itself.
        temperature, max_tokens: of the sampling, unless told otherwise.
    """

    name: str
    load: Callable[[Path], list[Example]]
    own_examples: Callable[[], list[Example]]
    prompt: str
    wrapper: str = ""
    graders: Mapping[AnswerFormat, Grader] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    judging: Literal["pairwise", "safety"] | None = None
    default_format: AnswerFormat | None = None
    temperature: float = 0.0
    max_tokens: int = 1024


def sample_path(name: str) -> Path:
    """A file or folder of our own examples, in the format of the benchmark."""
    return Path(str(files("cs336_alignment.evaluation").joinpath("samples", name)))


def spread(examples: Sequence[Example], at_most: int | None) -> list[Example]:
    """So many of the examples, evenly spread over the list; all if there are no more, or if `at_most` is None."""
    if at_most is None or at_most >= len(examples):
        return list(examples)
    return [examples[index * len(examples) // at_most] for index in range(at_most)]


def group_fields(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Those of the named fields that the record has, as text."""
    return {name: str(record[name]) for name in names if record.get(name) is not None}
