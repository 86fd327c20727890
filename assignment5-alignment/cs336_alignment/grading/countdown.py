"""Countdown: reach the target with the given numbers, each used once, by + - * / and parentheses.

The answer is read by Python's parser and computed in fractions; it is never executed.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from cs336_alignment.grading.extraction import boxed_answer, has_answer_tags, has_box, tagged_answer
from cs336_basics.command_line import UsageError

MAX_LENGTH = 500
"""Characters of an expression; longer ones are wrong."""
MAX_DEPTH = 50

_LATEX = {
    r"\times": "*",
    r"\cdot": "*",
    r"\div": "/",
    r"\left": "",
    r"\right": "",
    "×": "*",
    "·": "*",
    "÷": "/",
    "−": "-",
}
_ALLOWED = re.compile(r"[0-9\s+\-*/()]+")
_FRACTION = re.compile(r"\\d?frac\{([^{}]*)\}\{([^{}]*)\}")


class NotAnExpression(ValueError):
    """The text is no arithmetic expression in whole numbers with + - * / and parentheses, or has no value."""


def evaluate_expression(expression: str) -> tuple[Fraction, list[int]]:
    """The exact value of an arithmetic expression and the numbers in it, in their order.

    Raises:
        NotAnExpression: if it is something else, divides by zero, or is too long or deep.
    """
    if len(expression) > MAX_LENGTH or not _ALLOWED.fullmatch(expression):
        raise NotAnExpression("there are other characters than digits, + - * / and parentheses, or too many")
    try:
        tree = ast.parse(" ".join(expression.split()), mode="eval")
    except (SyntaxError, MemoryError, RecursionError, ValueError) as error:
        raise NotAnExpression(str(error)) from None
    numbers: list[int] = []
    try:
        return _value(tree.body, numbers, MAX_DEPTH), numbers
    except ZeroDivisionError:
        raise NotAnExpression("division by zero") from None


def _value(node: ast.expr, numbers: list[int], depth: int) -> Fraction:
    if depth == 0:
        raise NotAnExpression("the expression is too deep")
    match node:
        case ast.Constant(value=int(number)):
            numbers.append(number)
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, numbers, depth - 1)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as operation, right=right):
            a, b = _value(left, numbers, depth - 1), _value(right, numbers, depth - 1)
            match operation:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
            return a / b
    raise NotAnExpression(f"{type(node).__name__} is not allowed")


def verify_countdown(expression: str, numbers: Sequence[int], target: int, use_all: bool = True) -> bool:
    """Whether the expression reaches the target with the numbers given, as often as they are given.

    Args:
        expression: plain or with LaTeX's signs; `= target` may follow. Any string.
        numbers: the numbers to use.
        target: the value to reach, exactly.
        use_all: each number is to be used exactly once; else at most once.
    """
    try:
        value, used = evaluate_expression(_plain(expression))
    except NotAnExpression:
        return False
    given, taken = Counter(numbers), Counter(used)
    return value == target and (taken == given if use_all else taken <= given)


def _plain(expression: str) -> str:
    """The expression in Python's signs, without what follows an equals sign and without dollar signs."""
    if len(expression) > MAX_LENGTH:
        return ""
    for latex, plain in _LATEX.items():
        expression = expression.replace(latex, plain)
    expression = _FRACTION.sub(r"((\1)/(\2))", expression)
    return expression.strip().strip("$").partition("=")[0].strip()


def countdown_ground_truth(numbers: Sequence[int], target: int) -> str:
    """The ground truth of a problem as one string, as `countdown_reward_fn` reads it."""
    return json.dumps({"numbers": list(numbers), "target": target})


def countdown_reward_fn(
    response: str, ground_truth: str | Mapping[str, object], use_all: bool = True
) -> dict[str, float]:
    r"""Rewards of a response in the r1_zero format whose answer is an expression, boxed or not.

    Args:
        response: what the model wrote after the prompt. Any string.
        ground_truth: `{"numbers": [...], "target": ...}`, as JSON or as the mapping itself.
        use_all: as for `verify_countdown`.

    Returns:
        `format_reward`, `answer_reward` and `reward`, each 0.0 or 1.0, as those of `r1_zero_reward_fn`.

    Raises:
        UsageError: if the ground truth is something else.
    """
    numbers, target = _problem(ground_truth)
    if not has_answer_tags(response):
        return {"format_reward": 0.0, "answer_reward": 0.0, "reward": 0.0}
    answer = tagged_answer(response) or ""
    if has_box(answer):
        answer = boxed_answer(answer) or ""
    right = float(verify_countdown(answer, numbers, target, use_all))
    return {"format_reward": 1.0, "answer_reward": right, "reward": right}


def _problem(ground_truth: str | Mapping[str, object]) -> tuple[list[int], int]:
    try:
        problem = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
        numbers, target = problem["numbers"], problem["target"]
        if isinstance(target, int) and all(isinstance(number, int) for number in numbers):
            return list(numbers), target
    except (ValueError, KeyError, TypeError):
        pass
    raise UsageError(f'a Countdown problem is {{"numbers": [3, 5, 7], "target": 22}}, not {ground_truth!r}')
