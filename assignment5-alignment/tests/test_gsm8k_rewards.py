"""GSM8K's gold answers and the reward against them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.grading.gsm8k import gold_answer, gsm8k_r1_zero_reward_fn
from cs336_alignment.response_parsing import parse_gsm8k_response
from cs336_basics.command_line import UsageError

SOLUTION = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nIn all she sold 48+24 = <<48+24=72>>72.\n#### 72"


@pytest.mark.parametrize(
    ("solution", "answer"),
    [(SOLUTION, "72"), ("#### 1,234", "1234"), ("x\n#### -5 ", "-5"), ("#### $3.50", "3.50"), ("#### 1\n#### 2", "2")],
)
def test_the_gold_answer_stands_behind_the_mark(solution, answer):
    assert gold_answer(solution) == answer


@pytest.mark.parametrize("solution", ["", "72", "#### ", "72 ###"])
def test_a_solution_without_an_answer_is_an_error(solution):
    with pytest.raises(UsageError, match=r"####"):
        gold_answer(solution)


@pytest.mark.parametrize("ground_truth", [SOLUTION, "72"])
@pytest.mark.parametrize(
    ("answer", "reward"),
    [("72", 1.0), ("72 clips", 1.0), ("$72", 1.0), ("72.00", 1.0), ("27", 0.0), ("48+24 = 72", 1.0), ("48+24", 0.0)],
)
def test_rewards_against_solutions_and_numbers(ground_truth, answer, reward):
    rewards = gsm8k_r1_zero_reward_fn(f"half of 48 </think> <answer> {answer} </answer>", ground_truth)
    assert rewards == {"format_reward": 1.0, "answer_reward": reward, "reward": reward}
    assert gsm8k_r1_zero_reward_fn(answer, ground_truth)["reward"] == 0.0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_a_number_with_separators_is_found_and_rewarded_if_it_is_the_gold_one(number, other):
    solution = f"so it is\n#### {number:,}"
    assert gold_answer(solution) == str(number)
    response = f"</think> <answer> {other:,} </answer>"
    assert gsm8k_r1_zero_reward_fn(response, solution)["reward"] == float(number == other)


def test_every_real_solution_has_an_answer_that_parses_and_earns_the_reward(shared_data):
    for line in (shared_data / "alignment/gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines():
        solution = json.loads(line)["answer"]
        answer = gold_answer(solution)
        assert parse_gsm8k_response(solution) == answer
        response = f"</think> <answer> {answer} </answer>"
        assert gsm8k_r1_zero_reward_fn(response, solution)["reward"] == 1.0
