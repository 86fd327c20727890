"""AlpacaEval: open instructions, each with another model's answer to be compared with.

Li et al. 2023, https://github.com/tatsu-lab/alpaca_eval.
"""

from functools import partial
from pathlib import Path

from cs336_alignment.evaluation.task import Example, Task, group_fields, sample_path
from cs336_alignment.records import json_records, text_field

GROUPS = ("dataset",)


def load(path: Path) -> list[Example]:
    """Read {"instruction", "output", "generator", "dataset"}, as JSON Lines or as one JSON list.

    Raises:
        UsageError: the file is not in that format.
    """
    return [
        Example(
            id=str(index),
            fields={"instruction": text_field(record, "instruction", place)},
            groups=group_fields(record, GROUPS),
            record={
                "instruction": record["instruction"],
                "reference": text_field(record, "output", place),
                "reference_generator": text_field(record, "generator", place, default="reference"),
            },
        )
        for index, (place, record) in enumerate(json_records(path))
    ]


ALPACA_EVAL = Task(
    name="alpaca_eval",
    load=load,
    own_examples=partial(load, sample_path("alpaca_eval.jsonl")),
    prompt="alpaca_eval",
    groups=GROUPS,
    wrapper="zero_shot_system_prompt",
    judging="pairwise",
)
