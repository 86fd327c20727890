"""Countdown: write an expression of the given numbers, each used once, that equals a target."""

from functools import partial
from pathlib import Path

from cs336_alignment.evaluation.grades import by_tags
from cs336_alignment.evaluation.task import Example, Task, sample_path
from cs336_alignment.grading.countdown import countdown_ground_truth, countdown_reward_fn
from cs336_alignment.records import json_records
from cs336_basics.command_line import UsageError


def load(path: Path) -> list[Example]:
    """Read JSON Lines of {"numbers": [integers], "target": integer}.

    Raises:
        UsageError: the file is not in that format.
    """
    examples = []
    for index, (place, record) in enumerate(json_records(path)):
        numbers, target = record.get("numbers", record.get("nums")), record.get("target")
        if (
            not isinstance(numbers, list)
            or not numbers
            or not all(type(number) is int for number in [*numbers, target])
        ):
            raise UsageError(f'{place}: "numbers" must be a list of integers and "target" an integer')
        examples.append(
            Example(
                id=str(record.get("id", index)),
                fields={"numbers": numbers, "target": target},
                gold=countdown_ground_truth(numbers, target),
                groups={"numbers": str(len(numbers))},
            )
        )
    return examples


COUNTDOWN = Task(
    name="countdown",
    load=load,
    own_examples=partial(load, sample_path("countdown.jsonl")),
    prompt="countdown",
    groups=("numbers",),
    graders={"r1_zero": by_tags(countdown_reward_fn)},
    default_format="r1_zero",
    temperature=1.0,
)
