"""Graders: from a response to its grade, one for each form of the answer. The checking itself is in `grading`."""

from collections.abc import Callable

from cs336_alignment.drgrpo_grader import question_only_reward_fn, r1_zero_reward_fn
from cs336_alignment.evaluation.task import Example, Grade, Grader
from cs336_alignment.grading.extraction import boxed_answer, tagged_answer
from cs336_alignment.grading.reward import RewardFunction
from cs336_alignment.response_parsing import parse_gsm8k_response, parse_mmlu_response


def by_tags(reward_function: RewardFunction = r1_zero_reward_fn) -> Grader:
    """The grader of responses with <think> and <answer> tags, by this reward function."""
    return _by_reward(reward_function, tagged_answer)


def by_box(reward_function: RewardFunction = question_only_reward_fn) -> Grader:
    """The grader of responses with a \\boxed{} answer, by this reward function."""
    return _by_reward(reward_function, boxed_answer)


def by_last_number(example: Example, response: str) -> Grade:
    """The last number of the response must equal the right one, as GSM8K is graded."""
    parsed = parse_gsm8k_response(response)
    return Grade(parsed, float(parsed is not None), float(parsed is not None and _same(parsed, example.gold)))


def by_option_letter(example: Example, response: str) -> Grade:
    """The option that the response names must be the right one, as MMLU is graded."""
    parsed = parse_mmlu_response({**example.fields, "answer": example.gold}, response)
    return Grade(parsed, float(parsed is not None), float(parsed == example.gold))


def _by_reward(reward_function: RewardFunction, parse: Callable[[str], str | None]) -> Grader:
    def grade(example: Example, response: str) -> Grade:
        rewards = reward_function(response, example.gold)
        return Grade(parse(response), rewards["format_reward"], rewards["answer_reward"])

    return grade


def _same(number: str, gold: str | None) -> bool:
    return gold is not None and float(number.replace(",", "")) == float(gold.replace(",", ""))
