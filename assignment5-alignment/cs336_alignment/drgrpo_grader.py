"""The two reward functions of reinforcement learning on mathematics.

Both judge the format of a response and, where that is right, the answer in it. The format of r1_zero is that of
DeepSeek-R1-Zero (DeepSeek-AI 2025, arXiv:2501.12948, table 1); the pair follows "Understanding R1-Zero-Like Training"
(Liu et al. 2025, arXiv:2503.20783).
"""

from collections.abc import Sequence

from cs336_alignment.grading.extraction import boxed_answer, has_answer_tags, has_box, tagged_answer
from cs336_alignment.grading.grade import is_correct

GroundTruth = str | int | float | Sequence[str | int | float]


def r1_zero_reward_fn(response: str, ground_truth: GroundTruth, fast: bool = True) -> dict[str, float]:
    r"""Rewards of a response to the `r1_zero` prompt: thoughts, `</think> <answer>`, the answer, `</answer>`.

    The answer is what the last answer tags hold, or the content of the last `\boxed` in there if there is one.

    Args:
        response: what the model wrote after the prompt's `<think>`.
        ground_truth: the right answer, or several of which each is right.
        fast: only compare as `cs336_alignment.grading.equivalence` does, in this process within milliseconds; else ask
            math-verify as well where that cannot decide, in a worker process with a time limit.

    Returns:
        `format_reward`, `answer_reward` and `reward` (that of the answer), each 0.0 or 1.0. An answer counts only in
        the right format. No string raises an error or takes longer than the limit.
    """
    if not has_answer_tags(response):
        return _rewards(False, False)
    answer = tagged_answer(response)
    if answer is not None and has_box(answer):
        answer = boxed_answer(answer)
    return _rewards(True, answer is not None and is_correct(answer, ground_truth, fast))


def question_only_reward_fn(response: str, ground_truth: GroundTruth, fast: bool = True) -> dict[str, float]:
    r"""Rewards of a response to the bare question: its format is right if it has a closed `\boxed{…}`; the last counts.

    Arguments and result are those of `r1_zero_reward_fn`.
    """
    answer = boxed_answer(response)
    if answer is None:
        return _rewards(False, False)
    return _rewards(True, is_correct(answer, ground_truth, fast))


def _rewards(format_is_right: bool, answer_is_right: bool) -> dict[str, float]:
    return {
        "format_reward": float(format_is_right),
        "answer_reward": float(answer_is_right),
        "reward": float(answer_is_right),
    }
