"""Arithmetic that an answer leaves undone: whoever copies the question 48+24 has not answered it.

By value the copy equals 72, and a policy that is rewarded for it soon learns nothing else. Graders in use therefore ask
for a numeral where the right answer is one, as that of PRM800K does (Lightman et al. 2023, arXiv:2305.20050).
"""

from cs336_alignment.grading.expression import Node

_RATIONAL = {"number", "negate", "add", "multiply", "divide"}


def leaves_work_undone(answer: Node, gold: Node) -> bool:
    """Whether the gold answer is a plain number and `answer` holds a sum or product of numerals.

    A mixed number (1 + 4/5) and scientific notation (3 times a power of ten) are numerals too.
    """
    return _is_plain_number(gold) and _has_sum_or_product(answer)


def _is_plain_number(node: Node) -> bool:
    if node.operation == "negate":
        return _is_plain_number(node.arguments[0])
    return _is_fraction(node) or _is_mixed_number(node)


def _is_fraction(node: Node) -> bool:
    parts = node.arguments if node.operation == "divide" else (node,)
    return all(_is_integer_or_decimal(part) for part in parts)


def _is_integer_or_decimal(node: Node) -> bool:
    return node.operation == "number" or (node.operation == "negate" and node.arguments[0].operation == "number")


def _is_mixed_number(node: Node) -> bool:
    if node.operation != "add":
        return False
    whole, part = node.arguments
    return whole.operation == "number" and part.operation == "divide" and _is_fraction(part)


def _has_sum_or_product(node: Node) -> bool:
    undone = node.operation in ("add", "multiply") and _is_rational_arithmetic(node) and not _is_mixed_number(node)
    return undone or any(map(_has_sum_or_product, () if _is_mixed_number(node) else node.arguments))


def _is_rational_arithmetic(node: Node) -> bool:
    """Whether only the four operations on numerals stand here: neither powers nor roots, constants or symbols."""
    return node.operation in _RATIONAL and all(map(_is_rational_arithmetic, node.arguments))
