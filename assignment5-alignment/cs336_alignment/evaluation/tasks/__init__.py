"""The benchmarks by name."""

from cs336_alignment.default_task.tasks import TASK_NAME
from cs336_alignment.evaluation.task import Task
from cs336_alignment.evaluation.tasks.alpaca_eval import ALPACA_EVAL
from cs336_alignment.evaluation.tasks.arithmetic import ARITHMETIC
from cs336_alignment.evaluation.tasks.countdown import COUNTDOWN
from cs336_alignment.evaluation.tasks.gsm8k import GSM8K
from cs336_alignment.evaluation.tasks.math import MATH
from cs336_alignment.evaluation.tasks.mmlu import MMLU
from cs336_alignment.evaluation.tasks.simple_safety_tests import SIMPLE_SAFETY_TESTS
from cs336_basics.command_line import UsageError

TASKS = {task.name: task for task in (ARITHMETIC, MATH, GSM8K, MMLU, COUNTDOWN, ALPACA_EVAL, SIMPLE_SAFETY_TESTS)}


def find_task(name: str) -> Task:
    """The benchmark of this name.

    Raises:
        UsageError: there is none.
    """
    if name == TASK_NAME:  # another name of the arithmetic task
        return ARITHMETIC
    if name not in TASKS:
        raise UsageError(f"task {name!r} is unknown; allowed are {', '.join([TASK_NAME, *TASKS])}")
    return TASKS[name]
