"""MATH: competition problems with an exact answer.

Hendrycks et al. 2021, "Measuring Mathematical Problem Solving With the MATH Dataset" (arXiv:2103.03874).
"""

from functools import partial
from pathlib import Path

from cs336_alignment.evaluation.grades import by_box, by_tags
from cs336_alignment.evaluation.task import Example, Task, group_fields, sample_path
from cs336_alignment.records import json_records, text_field

GROUPS = ("subject", "level")


def load(path: Path) -> list[Example]:
    """Read JSON Lines of {"problem", "answer"}, with "subject", "level" and "unique_id" if there are any.

    Raises:
        UsageError: the file is not in that format.
    """
    return [
        Example(
            id=str(record.get("unique_id", index)),
            fields={"question": text_field(record, "problem", place)},
            gold=text_field(record, "answer", place),
            groups=group_fields(record, GROUPS),
        )
        for index, (place, record) in enumerate(json_records(path))
    ]


MATH = Task(
    name="math",
    load=load,
    own_examples=partial(load, sample_path("math.jsonl")),
    prompt="r1_zero",
    groups=GROUPS,
    graders={"r1_zero": by_tags(), "boxed": by_box()},
    default_format="r1_zero",
    temperature=1.0,
)
