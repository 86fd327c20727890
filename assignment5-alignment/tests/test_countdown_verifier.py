"""The Countdown verifier against brute force over all expressions, and what it must not accept."""

import ast
import operator
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.grading.countdown import (
    NotAnExpression,
    countdown_ground_truth,
    countdown_reward_fn,
    evaluate_expression,
    verify_countdown,
)
from cs336_basics.command_line import UsageError

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def all_expressions(numbers):
    """Every fully parenthesized expression over the numbers in their order, with its value."""
    if len(numbers) == 1:
        yield str(numbers[0]), Fraction(numbers[0])
        return
    for cut in range(1, len(numbers)):
        for left, a in all_expressions(numbers[:cut]):
            for right, b in all_expressions(numbers[cut:]):
                for sign, operation in OPERATIONS.items():
                    if sign != "/" or b != 0:
                        yield f"({left} {sign} {right})", operation(a, b)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=3), st.integers(0, 60))
def test_exactly_the_expressions_that_reach_the_target_are_right(numbers, target):
    for order in set(permutations(numbers)):
        for expression, value in all_expressions(order):
            assert verify_countdown(expression, numbers, target) == (value == target)
            assert evaluate_expression(expression) == (value, list(order))


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("(1 + 2) * 3", True),
        ("3*(2+1)", True),
        ("(1+2)*3 = 9", True),
        (r"(1 + 2) \times 3", True),
        (r"$\left(1+2\right)\cdot 3$", True),
        ("(1 + 2) × 3", True),
        (r"\frac{3}{1}+\frac{2}{2}", False),
        ("9", False),
        ("1 + 2 + 3", False),
        ("(1 + 2) * 3 * 1", False),
        ("3 * 3", False),
        ("3**2 * 1", False),
        ("9 + 0*(1+2+3)", False),
        ("(1 + 2) * 3)", False),
        ("12 - 3", False),
        ("(1+2)(3)", False),
        ("1 // 2 + 3", False),
        ("(1 + 2) * 3 if 1 else 0", False),
        ("sum([1,2,3])+3", False),
        ("__import__('os').system('true')", False),
        ("1/0", False),
        ("", False),
        ("=", False),
        ("(" * 300 + "1" + ")" * 300, False),
        ("-" * 400 + "1", False),
        ("9" * 100_000, False),
    ],
)
def test_what_counts_as_a_solution(expression, right):
    assert verify_countdown(expression, [1, 2, 3], 9) is right


def test_numbers_may_be_left_out_only_if_asked():
    assert not verify_countdown("2 * 3", [1, 2, 3], 6)
    assert verify_countdown("2 * 3", [1, 2, 3], 6, use_all=False)
    assert not verify_countdown("3 + 3", [1, 2, 3], 6, use_all=False)
    assert verify_countdown("3 + 3", [3, 3], 6)


def test_values_are_exact():
    assert verify_countdown("6 / (1 - 3 / 4)", [1, 3, 4, 6], 24)
    assert verify_countdown("1/3*3", [1, 3, 3], 1)
    assert not verify_countdown("10000000000000001 / 1", [10000000000000001, 1], 10000000000000000)


def test_rewards_in_the_r1_zero_format():
    truth = countdown_ground_truth([3, 5, 7], 22)
    right = {"format_reward": 1.0, "answer_reward": 1.0, "reward": 1.0}
    assert countdown_reward_fn("</think> <answer> 3 * 5 + 7 </answer>", truth) == right
    assert countdown_reward_fn(r"</think> <answer> $\boxed{3 \cdot 5 + 7}$ </answer>", truth) == right
    assert (
        countdown_reward_fn("</think> <answer> 7 + 5 * 3 = 22 </answer>", {"numbers": [3, 5, 7], "target": 22}) == right
    )
    assert countdown_reward_fn("</think> <answer> 22 </answer>", truth)["format_reward"] == 1.0
    assert countdown_reward_fn("</think> <answer> 22 </answer>", truth)["reward"] == 0.0
    assert countdown_reward_fn("3 * 5 + 7", truth) == {"format_reward": 0.0, "answer_reward": 0.0, "reward": 0.0}


@pytest.mark.parametrize(
    "truth", ["", "22", "[]", '{"numbers": [1]}', '{"numbers": ["1"], "target": 1}', {"target": 1}]
)
def test_a_ground_truth_of_another_kind_is_an_error(truth):
    with pytest.raises(UsageError, match="a Countdown problem is"):
        countdown_reward_fn("</think> <answer> 1 </answer>", truth)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(alphabet="0123456789+-*/() ", max_size=30) | st.text(max_size=30))
def test_any_string_is_an_expression_of_the_allowed_kind_or_none(text):
    verify_countdown(text, [1, 2], 3)
    try:
        value, numbers = evaluate_expression(text)
    except NotAnExpression:
        return
    kinds = {type(node) for node in ast.walk(ast.parse(text.strip(), mode="eval"))}
    arithmetic = {ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub}
    assert kinds <= {ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant} | arithmetic
    assert isinstance(value, Fraction)
    assert all(str(number) in text for number in numbers)
