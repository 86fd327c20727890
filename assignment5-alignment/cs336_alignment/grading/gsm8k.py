"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): solutions that end in `#### 72`, and rewards against them."""

from cs336_alignment.drgrpo_grader import r1_zero_reward_fn
from cs336_basics.command_line import UsageError

ANSWER_MARK = "####"


def gold_answer(solution: str) -> str:
    """The number behind the last `####` of a solution, without separators of thousands and dollar sign.

    Raises:
        UsageError: if there is no `####`, or nothing behind it.
    """
    _, mark, answer = solution.rpartition(ANSWER_MARK)
    answer = answer.strip().replace(",", "").lstrip("$")
    if not mark or not answer:
        raise UsageError(
            f"a GSM8K solution ends in '{ANSWER_MARK} NUMBER', which this one does not: {solution[-80:]!r}"
        )
    return answer


def gsm8k_r1_zero_reward_fn(response: str, ground_truth: str, fast: bool = True) -> dict[str, float]:
    """`r1_zero_reward_fn` against a GSM8K solution, or against its number alone.

    Args:
        response: what the model wrote after the prompt.
        ground_truth: the data set's solution with its `####`, or the number.
        fast: as for `r1_zero_reward_fn`.

    Raises:
        UsageError: if nothing stands behind the solution's `####`.
    """
    number = gold_answer(ground_truth) if ANSWER_MARK in ground_truth else ground_truth
    return r1_zero_reward_fn(response, number, fast)
