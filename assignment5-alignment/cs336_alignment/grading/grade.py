"""Whether an extracted answer is right: one of the alternatives of the ground truth, quickly or with math-verify."""

from collections.abc import Sequence

from cs336_alignment.grading.equivalence import compare_answers
from cs336_alignment.grading.extraction import boxed_answer
from cs336_alignment.grading.symbolic import symbolically_equal


def is_correct(answer: str, ground_truth: str | int | float | Sequence[str | int | float], fast: bool = True) -> bool:
    """Whether `answer` equals the ground truth, or one of several.

    Args:
        answer: what was extracted from a response; any string.
        ground_truth: the right answer, or the alternatives; a string may hold its answer in a box.
        fast: count as wrong what `compare_answers` cannot decide; else math-verify decides it, in a process with a
            time limit. Where `compare_answers` does decide, math-verify is not asked: it takes east for seat, 1, 1
            for 1 and 52_8 for 52_9.
    """
    alternatives = ground_truth if isinstance(ground_truth, list | tuple) else [ground_truth]
    golds = [_as_text(gold) for gold in alternatives]
    verdicts = [compare_answers(answer, gold) for gold in golds]
    if fast or any(verdicts):
        return any(verdicts)
    undecided = [gold for gold, verdict in zip(golds, verdicts, strict=True) if verdict is None]
    return any(symbolically_equal(answer, gold) for gold in undecided)


def _as_text(gold: str | int | float) -> str:
    if isinstance(gold, float):
        return format(gold, ".12g")  # 0.1 + 0.2 is 0.3 to whoever wrote it
    return boxed_answer(str(gold)) or str(gold)
