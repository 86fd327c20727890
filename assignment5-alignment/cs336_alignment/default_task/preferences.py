"""Preference pairs of the default task: a right, worked solution against one with a fault.

The faults, equally likely:

    carry     one step goes on from another number than the last one came to, and the rest follows from it
    guess     no calculation, and a result that is wrong
    format    calculation and result are right, but a tag is missing, so no grader finds the answer
"""

import random
import re

from cs336_alignment.default_task.arithmetic import GREATEST, Chain
from cs336_alignment.default_task.tasks import Split, demonstration, make_examples, response_text
from cs336_alignment.preference.pairs import PreferencePair

FAULTS = ("carry", "guess", "format")
GREATEST_ERROR = 9
"""Of a wrong result."""
_TAGS = (" </think>", " <answer>", " </answer>")


def make_preferences(split: Split, num: int, seed: int = 0) -> list[PreferencePair]:
    """Pairs about distinct questions of one split, the same for the same arguments; `source` names the fault.

    Args:
        split: "train", "validation" or "test"; no question is in two of them.
        num: how many.
        seed: of the random choice, 0 or more.

    Raises:
        UsageError: an argument is out of range.
    """
    random_numbers = random.Random(f"preferences {split} {seed}")
    pairs = []
    for example in make_examples(split, num, seed):
        chain, fault = _chain(example["question"]), random_numbers.choice(FAULTS)
        rejected = faulty_response(chain, fault, random_numbers)
        pairs.append(PreferencePair(example["prompt"], demonstration(chain, worked=True), rejected, fault))
    return pairs


def faulty_response(chain: Chain, fault: str, random_numbers: random.Random) -> str:
    """A response with one of the module's faults.

    Args:
        chain: the problem.
        fault: one of `FAULTS`.
        random_numbers: decides where the fault lies.
    """
    if fault == "carry":
        return response_text(*_miscarried_steps(chain, random_numbers))
    if fault == "guess":
        guess = _wrong(chain.result, random_numbers)
        return response_text(f"{chain.text}={guess}", guess)
    return demonstration(chain, worked=True).replace(random_numbers.choice(_TAGS), "")


def _chain(question: str) -> Chain:
    first, *terms = map(int, re.findall(r"[+-]?\d+", question))
    return Chain(first, tuple(terms))


def _wrong(total: int, random_numbers: random.Random) -> int:
    nearby = range(max(0, total - GREATEST_ERROR), min(GREATEST, total + GREATEST_ERROR) + 1)
    return random_numbers.choice([number for number in nearby if number != total])


def _miscarried_steps(chain: Chain, random_numbers: random.Random) -> tuple[str, int]:
    """The calculation with one step that starts from a wrong number, and its result; totals stay in 0 to `GREATEST`."""
    while True:
        fault = random_numbers.randrange(1, len(chain.terms))
        totals, steps = [chain.first], []
        for place, term in enumerate(chain.terms):
            before = _wrong(totals[-1], random_numbers) if place == fault else totals[-1]
            totals.append(before + term)
            steps.append(f"{before}{term:+d}={totals[-1]}")
        if min(totals) >= 0 and max(totals) <= GREATEST:
            return " ".join(steps), totals[-1]
