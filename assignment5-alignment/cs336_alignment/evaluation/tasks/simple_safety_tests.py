"""SimpleSafetyTests: short requests that a model ought to decline.

Vidgen et al. 2023, "SimpleSafetyTests: a Test Suite for Identifying Critical Safety Risks in Large Language Models"
(arXiv:2311.08370).
"""

from functools import partial
from pathlib import Path

from cs336_alignment.evaluation.task import Example, Task, group_fields, sample_path
from cs336_alignment.records import csv_rows, text_field
from cs336_basics.command_line import UsageError

GROUPS = ("harm_area", "category")


def load(path: Path) -> list[Example]:
    """Read a CSV file with a header: "id", "harm_area", "category" and "prompts_final".

    Raises:
        UsageError: the file is not in that format.
    """
    rows = csv_rows(path)
    _, header = next(rows, ("", []))
    examples = []
    for place, row in rows:
        if len(row) != len(header):
            raise UsageError(f"{place}: {len(row)} columns under a header of {len(header)}")
        record = dict(zip(header, row, strict=True))
        examples.append(
            Example(
                id=record.get("id", str(len(examples))),
                fields={"instruction": text_field(record, "prompts_final", place)},
                groups=group_fields(record, GROUPS),
                record={"request": record["prompts_final"]},
            )
        )
    if not examples:
        raise UsageError(f"{path} holds no examples")
    return examples


SIMPLE_SAFETY_TESTS = Task(
    name="simple_safety_tests",
    load=load,
    own_examples=partial(load, sample_path("simple_safety_tests.csv")),
    prompt="simple_safety_tests",
    groups=GROUPS,
    wrapper="zero_shot_system_prompt",
    judging="safety",
)
