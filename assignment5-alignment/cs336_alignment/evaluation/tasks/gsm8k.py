"""GSM8K: grade-school word problems, whose solutions end in "#### 72".

Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (arXiv:2110.14168).
"""

from functools import partial
from pathlib import Path

from cs336_alignment.evaluation.grades import by_box, by_last_number, by_tags
from cs336_alignment.evaluation.task import Example, Task, sample_path
from cs336_alignment.grading.gsm8k import gold_answer, gsm8k_r1_zero_reward_fn
from cs336_alignment.records import json_records, text_field
from cs336_basics.command_line import UsageError


def load(path: Path) -> list[Example]:
    """Read JSON Lines of {"question", "answer"}, the answer being a solution that ends in "#### NUMBER".

    Raises:
        UsageError: the file is not in that format.
    """
    examples = []
    for index, (place, record) in enumerate(json_records(path)):
        solution = text_field(record, "answer", place)
        gold = gold_answer(solution) if "####" in solution else None
        if gold is None:
            raise UsageError(f'{place}: the answer does not end in "#### NUMBER": {solution[-60:]!r}')
        examples.append(Example(str(index), {"question": text_field(record, "question", place)}, gold))
    return examples


GSM8K = Task(
    name="gsm8k",
    load=load,
    own_examples=partial(load, sample_path("gsm8k.jsonl")),
    prompt="gsm8k",
    wrapper="zero_shot_system_prompt",
    graders={"last_number": by_last_number, "r1_zero": by_tags(gsm8k_r1_zero_reward_fn), "boxed": by_box()},
    default_format="last_number",
)
