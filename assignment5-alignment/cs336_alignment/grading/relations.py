"""Equations and inequalities: what they assign, which interval they describe, when two of them say the same."""

from cs336_alignment.grading.answer_form import Expression, Form, Relation, Sequence
from cs336_alignment.grading.evaluate import symbols
from cs336_alignment.grading.expression import Node
from cs336_alignment.grading.identity import MIN_POINTS, nodes_equal, values_at_points, values_equal

_FUNCTION_NAMES = frozenset("fghpqyFGHPQ")
_REVERSED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}
_INFINITY = Expression(Node("symbol", name=r"\infty"))
_MINUS_INFINITY = Expression(Node("negate", (_INFINITY.node,)))


def assigned_value(relation: Relation) -> Form | None:
    """What the equation says of its left side, a symbol or f(x) or a point of symbols; of 2 + 3 = 5, if true, 5."""
    if set(relation.signs) != {"="}:
        return None
    first, last = relation.sides[0], relation.sides[-1]
    if _is_name(first) or (isinstance(first, Sequence) and all(map(_is_name, first.items))):
        return last
    nodes = [side.node for side in relation.sides if isinstance(side, Expression)]
    constant = len(nodes) == len(relation.sides) and not any(map(symbols, nodes))
    return last if constant and all(nodes_equal(node, nodes[-1]) for node in nodes) else None


def interval_of(relation: Relation) -> tuple[str, Sequence] | None:
    """The symbol and the interval of a < x <= b, x < b or a < x, whichever way round; None for any other relation."""
    sides, signs = relation.sides, relation.signs
    if all(sign in (">", r"\ge") for sign in signs):
        sides, signs = sides[::-1], tuple(_REVERSED[sign] for sign in reversed(signs))
    if not all(sign in ("<", r"\le") for sign in signs) or not all(isinstance(side, Expression) for side in sides):
        return None
    if len(sides) == 3 and _is_symbol(sides[1]):
        low, name, high, closed = sides[0], sides[1], sides[2], (signs[0] == r"\le", signs[1] == r"\le")
    elif len(sides) == 2 and _is_symbol(sides[0]) and not symbols(sides[1].node):
        low, name, high, closed = _MINUS_INFINITY, sides[0], sides[1], (False, signs[0] == r"\le")
    elif len(sides) == 2 and _is_symbol(sides[1]) and not symbols(sides[0].node):
        low, name, high, closed = sides[0], sides[1], _INFINITY, (signs[0] == r"\le", False)
    else:
        return None
    return name.node.name, Sequence("[" if closed[0] else "(", (low, high), "]" if closed[1] else ")")


def proportional(a: Relation, b: Relation) -> bool:
    """Whether two relations of two sides differ by a constant factor: 2x = 6 and x - 3 = 0, x < y and -y < -x.

    The factor may be negative for = and the unequal sign, else the inequality has to turn round with it.
    """
    if len(a.signs) != 1 or len(b.signs) != 1 or b.signs[0] not in (a.signs[0], _REVERSED[a.signs[0]]):
        return False
    if not all(isinstance(side, Expression) for side in (*a.sides, *b.sides)):
        return False
    differences = [
        Node("add", (relation.sides[0].node, Node("negate", (relation.sides[1].node,)))) for relation in (a, b)
    ]
    names = symbols(differences[0]) | symbols(differences[1])
    pairs = [(x, y) for x, y in values_at_points(*differences, names) if x and y] if names else []
    if len(pairs) <= MIN_POINTS:
        return False
    (x0, y0), *others = pairs
    if a.signs[0] not in ("=", r"\ne"):
        same_direction = (complex(x0) / complex(y0)).real > 0
        if same_direction != (a.signs == b.signs):
            return False
    return all(values_equal(complex(x) * complex(y0), complex(y) * complex(x0)) for x, y in others)


def _is_symbol(form: Form) -> bool:
    return isinstance(form, Expression) and form.node.operation == "symbol" and form.node.name != r"\infty"


def _is_name(form: Form) -> bool:
    """Whether the form is a symbol, or a function of symbols such as f(x), which reads as a product."""
    if not isinstance(form, Expression):
        return False
    node = form.node
    while node.operation == "multiply" and node.arguments[1].operation == "symbol":
        node = node.arguments[0]
        if node.name in _FUNCTION_NAMES:
            return True
    return _is_symbol(form)
