"""Arithmetic: the held-out questions of the small task that every program trains on unless told otherwise."""

from pathlib import Path

from cs336_alignment.default_task.tasks import PROMPT_NAME, Split, make_examples
from cs336_alignment.evaluation.grades import by_box, by_tags
from cs336_alignment.evaluation.task import Example, Task, group_fields
from cs336_alignment.records import json_records, text_field

NUM_MADE = 256
"""Questions made where no file is given."""

GROUPS = ("subject", "level")


def load(path: Path) -> list[Example]:
    """Read JSON Lines of {"question", "answer"}, or of {"prompt", "answer"} whose prompts stand as the model sees them.

    Raises:
        UsageError: the file is not in that format.
    """
    return [
        Example(
            id=str(record.get("id", index)),
            fields=_fields(record, place),
            gold=text_field(record, "answer", place),
            groups=group_fields(record, GROUPS),
        )
        for index, (place, record) in enumerate(json_records(path))
    ]


def _fields(record: dict[str, object], place: str) -> dict[str, str]:
    if "prompt" in record:
        return {"prompt": text_field(record, "prompt", place)}
    return {"question": text_field(record, "question", place)}


def make(split: Split = "test", num: int = NUM_MADE, seed: int = 0) -> list[Example]:
    """Questions of the default task; no question of one split is in another."""
    made = make_examples(split, num, seed)
    return [
        Example(str(index), {"question": example["question"]}, example["answer"]) for index, example in enumerate(made)
    ]


ARITHMETIC = Task(
    name="arithmetic",
    load=load,
    own_examples=make,
    prompt=PROMPT_NAME,
    groups=GROUPS,
    graders={"r1_zero": by_tags(), "boxed": by_box()},
    default_format="r1_zero",
    temperature=0.0,
    max_tokens=128,
)
