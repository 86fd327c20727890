"""Whether an extracted answer is right: one of the alternatives of the ground truth, quickly or with math-verify."""

from collections.abc import Sequence

from cs336_alignment.grading.equivalence import answers_equal
from cs336_alignment.grading.extraction import boxed_answer


def is_correct(answer: str, ground_truth: str | int | float | Sequence[str | int | float], fast: bool = True) -> bool:
    """Whether `answer` equals the ground truth, or one of several.

    Args:
        answer: what was extracted from a response; any string.
        ground_truth: the right answer, or the alternatives; a string may hold its answer in a box.
        fast: stop at what `answers_equal` decides; else math-verify is asked where that says no.
    """
    alternatives = [ground_truth] if isinstance(ground_truth, str | int | float) else list(ground_truth)
    golds = [boxed_answer(str(gold)) or str(gold) for gold in alternatives]
    return any(answers_equal(answer, gold) for gold in golds)
