"""What kind of thing an answer is: a number or expression, a point, an interval, a set, a matrix, an equation."""

import re
from dataclasses import dataclass
from itertools import accumulate

from cs336_alignment.grading.expression import MAX_DEPTH, Node, parse_expression
from cs336_alignment.grading.notation import normalize_notation
from cs336_alignment.grading.tokens import CLOSING, OPENING, NotMathematics, is_bracketed, split_top_level, tokenize
from cs336_alignment.grading.units import split_unit

MAX_ITEMS = 40

_RELATIONS = {"=", "<", ">", r"\le", r"\ge", r"\ne"}
_CONJUNCTION = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|,?\s+(?:and|or)\s+")
_MINUS_PLUS = {r"\pm": ("+", "-"), r"\mp": ("-", "+")}
_SEPARATORS = {",", ";"}


@dataclass(frozen=True, slots=True)
class Expression:
    """A number or an expression in symbols, with its unit ("" if it has none)."""

    node: Node
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Several answers in any order: 1, -2 without brackets, or a set in braces (`is_set`)."""

    items: tuple["Form", ...]
    is_set: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """Items in order within brackets: a point, or with two items an interval. The brackets count."""

    opening: str
    items: tuple["Form", ...]
    closing: str


@dataclass(frozen=True, slots=True)
class Union:
    """Sets joined in any order."""

    parts: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple["Form", ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """Sides with a relation sign between each two neighbors: -2 <= x < 7."""

    sides: tuple["Form", ...]
    signs: tuple[str, ...]


Form = Expression | Listing | Sequence | Union | Matrix | Relation


def read_answer(answer: str, join_thousands: bool = True) -> Form:
    r"""The form of an answer of bounded length.

    Args:
        answer: the text, LaTeX or plain.
        join_thousands: read 10,080 as one number.

    Raises:
        NotMathematics: if it is not mathematics, or none that is read here.
    """
    text, unit = split_unit(_CONJUNCTION.sub(",", normalize_notation(answer, join_thousands)))
    tokens = tokenize(text)
    _bound_depth(tokens)
    form = _read(tokens)
    if not unit:
        return form
    if isinstance(form, Expression):
        return Expression(form.node, unit)
    if isinstance(form, Relation) and isinstance(form.sides[-1], Expression):
        return Relation((*form.sides[:-1], Expression(form.sides[-1].node, unit)), form.signs)
    return form


def _bound_depth(tokens: list[str]) -> None:
    depth = 0
    for token in tokens:
        depth += (token in OPENING) - (token in CLOSING)
        if depth > MAX_DEPTH:
            raise NotMathematics("the brackets are too deep")


def _read(tokens: list[str]) -> Form:
    """The form of some tokens; commas outside of brackets make a list."""
    if sum(token in _MINUS_PLUS for token in tokens) > 4:
        raise NotMathematics("too many signs ±")
    parts = [part for part in split_top_level(tokens, _SEPARATORS) if part]
    if not parts or len(parts) > MAX_ITEMS:
        raise NotMathematics("no item, or too many")
    items = _with_signs_resolved(parts)
    return items[0] if len(items) == 1 else Listing(items)


def _with_signs_resolved(parts: list[list[str]]) -> tuple[Form, ...]:
    r"""The form of each part; one with \pm stands for two."""
    items: list[Form] = []
    for part in parts:
        if not is_bracketed(part) and any(token in _MINUS_PLUS for token in part):
            for choice in (0, 1):
                items.append(
                    _read_one([_MINUS_PLUS[token][choice] if token in _MINUS_PLUS else token for token in part])
                )
        else:
            items.append(_read_one(part))
    return tuple(items)


def _read_one(tokens: list[str]) -> Form:
    """The form of tokens without a comma outside of brackets."""
    members = split_top_level(tokens, {r"\in"})
    if len(members) == 2 and len(members[0]) <= 2:
        return _read_one(members[1])  # x \in [0, 1] is the interval
    sides = split_top_level(tokens, _RELATIONS)
    if len(sides) > 1:
        ends = accumulate(len(side) + 1 for side in sides[:-1])
        return Relation(tuple(_read_one(side) for side in sides), tuple(tokens[end - 1] for end in ends))
    parts = split_top_level(tokens, {r"\cup"})
    if len(parts) > 1:
        return Union(tuple(_read_one(part) for part in parts))
    if tokens and tokens[0] == r"\begin" and tokens[-1] == r"\end" and tokens.count(r"\begin") == 1:
        return _read_matrix(tokens[1:-1])
    if is_bracketed(tokens):
        if tokens[1] == r"\begin" and tokens[-2] == r"\end" and tokens[0] in ("(", "["):
            return _read_one(tokens[1:-1])  # an array within brackets of its own
        inner = [part for part in split_top_level(tokens[1:-1], _SEPARATORS) if part]
        if inner and (tokens[0] == r"\{" or (tokens[0] == "{" and len(inner) > 1)):
            return Listing(_with_signs_resolved(inner), is_set=True)
        if len(inner) > 1 and len(inner) <= MAX_ITEMS and tokens[0] in ("(", "[", r"\langle"):
            angular = tokens[0] == r"\langle"
            items = tuple(_read_one(part) for part in inner)
            return Sequence("(" if angular else tokens[0], items, ")" if angular else tokens[-1])
        if len(inner) == 1 and tokens[0] == "{" and tokens[-1] == "}":
            return _read_one(inner[0])
    return Expression(parse_expression(tokens))


def _read_matrix(tokens: list[str]) -> Matrix:
    rows = [row for row in split_top_level(tokens, {"\\\\"}) if row]
    entries = [split_top_level(row, {"&"}) for row in rows]
    if not rows or sum(map(len, entries)) > MAX_ITEMS or len({len(row) for row in entries}) > 1:
        raise NotMathematics("no matrix")
    return Matrix(tuple(tuple(_read_one(entry) for entry in row) for row in entries))
