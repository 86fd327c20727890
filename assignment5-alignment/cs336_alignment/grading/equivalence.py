r"""Whether two answers are the same, decided in this process within milliseconds.

Expressions are compared by value (see `identity.py`); no simplification takes place, so nothing can run away. The
conventions are those of the MATH data set (Hendrycks et al. 2021, arXiv:2103.03874):

- an answer without its unit, its degree sign or its `x =` is right; two known units that differ are not;
- 50\% equals 50 and, being a number, 0.5;
- lists and sets have no order, points and intervals do, and the kind of bracket counts;
- a subscript that names a base belongs to the number: 52_8 is neither 52 nor 42;
- 48+24 is not the answer 72: a sum or product of numerals is work left undone, a fraction or a power is not;
- decimals are exact, up to a relative 1e-6 against a number without a finite expansion: 3.141593 is pi, 0.33 not 1/3.
"""

import re
from collections.abc import Sequence as Items
from fractions import Fraction

from cs336_alignment.grading.answer_form import (
    Expression,
    Form,
    Listing,
    Matrix,
    Relation,
    Sequence,
    Union,
    read_answer,
)
from cs336_alignment.grading.evaluate import Undefined
from cs336_alignment.grading.expression import Node
from cs336_alignment.grading.identity import nodes_equal
from cs336_alignment.grading.notation import MAX_LENGTH, normalize_notation
from cs336_alignment.grading.relations import assigned_value, interval_of, proportional
from cs336_alignment.grading.tokens import NotMathematics
from cs336_alignment.grading.undone import leaves_work_undone
from cs336_alignment.grading.units import units_differ

_CHOICE = re.compile(r"[({\[]?\s*([A-Z])\s*[)}\]]?\s*[.:]?")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_WORD = re.compile(r"[^\W\d_]{3}")


def answers_equal(answer: str, gold: str) -> bool:
    """Whether `answer` is the answer `gold`, by text or by value; what cannot be read or has no value is not.

    Args:
        answer: what was extracted from a response; any string.
        gold: the right answer; any string.
    """
    return bool(compare_answers(answer, gold))


def compare_answers(answer: str, gold: str) -> bool | None:
    """Like `answers_equal`, but None where the two are mathematics of a kind that is not read or evaluated here."""
    if not answer.strip() or not gold.strip():
        return False
    if max(len(answer), len(gold)) > MAX_LENGTH:
        return answer.split() == gold.split()
    answer_text, gold_text = canonical_text(answer), canonical_text(gold)
    if answer_text == gold_text:
        return bool(gold_text)
    choices = [_CHOICE.fullmatch(text) for text in (answer_text, gold_text)]
    if all(choices):  # (C) and C
        return choices[0][1] == choices[1][1]
    if any(choice and len(choice[0]) > 1 for choice in choices):
        return False
    try:
        gold_form = read_answer(gold)
        answer_form = read_answer(answer)
        if isinstance(gold_form, Listing) != isinstance(answer_form, Listing):  # 100,200 may be two numbers
            gold_form, answer_form = read_answer(gold, join_thousands=False), read_answer(answer, join_thousands=False)
        return forms_equal(answer_form, gold_form)
    except (NotMathematics, Undefined, RecursionError):  # the last if the caller is deep down already
        return None


def canonical_text(answer: str) -> str:
    """The answer's text without white space, text commands and, where there are words, without case and article."""
    text = _TEXT.sub(r"\1", normalize_notation(answer)).strip().rstrip(".")
    if _WORD.search(text):
        text = _ARTICLE.sub("", text).casefold()
    return _SPACE.sub("", text)


def forms_equal(a: Form, b: Form) -> bool:
    """Whether two answers that were read are the same."""
    if isinstance(a, Relation) and isinstance(b, Relation):
        return _relations_equal(a, b)
    for relation, other in ((a, b), (b, a)):
        if isinstance(relation, Relation):
            named = interval_of(relation)
            value = named[1] if named else assigned_value(relation)
            return value is not None and forms_equal(value, other)
    if isinstance(a, Expression) and isinstance(b, Expression):
        return _expressions_equal(a, b)
    if isinstance(a, Listing) and isinstance(b, Listing):
        return _same_items(a.items, b.items)
    if isinstance(a, Union) and isinstance(b, Union):
        return _same_items(a.parts, b.parts)
    if isinstance(a, Matrix) and isinstance(b, Matrix):
        return len(a.rows) == len(b.rows) and all(map(_pairwise_equal, a.rows, b.rows))
    if isinstance(a, Sequence) and isinstance(b, Sequence):
        return (a.opening, a.closing) == (b.opening, b.closing) and _pairwise_equal(a.items, b.items)
    for listing, sequence in ((a, b), (b, a)):
        if isinstance(listing, Listing) and isinstance(sequence, Sequence) and not listing.is_set:
            # Coordinates without their parentheses, still in order.
            is_point = (sequence.opening, sequence.closing) == ("(", ")")
            return is_point and _pairwise_equal(listing.items, sequence.items)
    return False


def _pairwise_equal(a: Items[Form], b: Items[Form]) -> bool:
    return len(a) == len(b) and all(map(forms_equal, a, b))


def _same_items(a: Items[Form], b: Items[Form]) -> bool:
    """Whether each item has its own partner, in any order."""
    rest = list(b)
    for item in a:
        partner = next((index for index, other in enumerate(rest) if forms_equal(item, other)), None)
        if partner is None:
            return False
        del rest[partner]
    return not rest


def _relations_equal(a: Relation, b: Relation) -> bool:
    intervals = interval_of(a), interval_of(b)
    if all(intervals):
        return intervals[0][0] == intervals[1][0] and forms_equal(intervals[0][1], intervals[1][1])
    if a.signs == b.signs and _pairwise_equal(a.sides, b.sides):
        return True
    return proportional(a, b)


def _expressions_equal(a: Expression, b: Expression) -> bool:
    if units_differ(a.unit, b.unit) or leaves_work_undone(a.node, b.node) or leaves_work_undone(b.node, a.node):
        return False
    if nodes_equal(a.node, b.node):
        return True
    if (a.unit == "percent") != (b.unit == "percent"):
        hundred = Node("number", value=Fraction(100))
        nodes = [Node("divide", (form.node, hundred)) if form.unit == "percent" else form.node for form in (a, b)]
        return nodes_equal(*nodes)
    return False
