"""Examples of the default task: a short prompt, the question, its answer, and a demonstration of how to answer.

Which split a question belongs to follows from the question itself (a checksum of its text), so training, validation
and test never share one, whatever the seeds. Demonstrations come in two styles, as they do on the web: some name the
answer at once, some work it out step by step. A tiny model cannot do the former; a learner that is rewarded for right
answers has to find out that working pays.
"""

import random
import zlib
from typing import Literal, TypedDict, get_args

from cs336_alignment.default_task.arithmetic import Chain, draw_chain
from cs336_alignment.prompts import format_prompt
from cs336_basics.command_line import UsageError

Split = Literal["train", "validation", "test"]

TASK_NAME = "default"
"""As `--task` takes it."""
PROMPT_NAME = "arithmetic"
NUM_TERMS = (4,)
"""Terms after the first number."""
SHARE_WORKED = 0.25
"""Of the demonstrations that go step by step."""
_BUCKETS = 10
"""One of these parts of all questions is for testing, one for validation."""


class Example(TypedDict):
    """One problem.

    `prompt` ends in the opening <think> tag, `response` is a demonstration that follows it.
    """

    prompt: str
    question: str
    answer: str
    response: str


def split_of(question: str) -> Split:
    """The split to which a question belongs."""
    bucket = zlib.crc32(question.encode()) % _BUCKETS
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def demonstration(chain: Chain, worked: bool) -> str:
    """A right response to follow the prompt: step by step if `worked`, else the result at once."""
    thought = chain.steps if worked else f"{chain.text}={chain.result}"
    return response_text(thought, chain.result)


def response_text(thought: str, result: int) -> str:
    """What follows a prompt, in the wanted form."""
    return f" {thought} </think> <answer> {result} </answer>"


def make_examples(split: Split, num: int, seed: int = 0) -> list[Example]:
    """Distinct examples of one split, the same for the same arguments.

    Args:
        split: "train", "validation" or "test"; no question is in two of them.
        num: how many.
        seed: of the random choice, 0 or more.

    Raises:
        UsageError: an argument is out of range.
    """
    if split not in get_args(Split):
        raise UsageError(f"split {split!r} is unknown: it must be one of {', '.join(get_args(Split))}")
    if num < 1:
        raise UsageError(f"number of examples {num} is not allowed: it must be at least 1")
    random_numbers = random.Random(f"{split} {seed}")
    examples: dict[str, Example] = {}
    while len(examples) < num:
        chain = draw_chain(random_numbers, NUM_TERMS)
        worked = random_numbers.random() < SHARE_WORKED
        if split_of(chain.text) != split or chain.text in examples:
            continue
        examples[chain.text] = {
            "prompt": format_prompt(PROMPT_NAME, question=chain.text),
            "question": chain.text,
            "answer": str(chain.result),
            "response": demonstration(chain, worked),
        }
    return list(examples.values())
