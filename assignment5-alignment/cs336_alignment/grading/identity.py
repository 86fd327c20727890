"""Whether two expressions are identical, decided by their values.

Two expressions that agree at several points in general position are equal (Schwartz 1980; Zippel 1979); rational
functions are evaluated in exact fractions, so that only transcendental ones depend on rounding.
"""

from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from zlib import crc32

from cs336_alignment.grading.evaluate import MAX_BITS, Undefined, Value, evaluate, symbols
from cs336_alignment.grading.expression import Node

DECIMAL_TOLERANCE = 1e-6
"""Relative difference at which a decimal still equals a number that no finite decimal can equal."""
FLOAT_TOLERANCE = 1e-11
"""Relative difference, and absolute one below 1, that rounding of floats may cause."""
NUM_POINTS = 5
MIN_POINTS = 2
"""At fewer points where both are defined, two expressions are not compared."""


def nodes_equal(a: Node, b: Node) -> bool:
    """Whether two expressions have the same value wherever both are tried.

    Raises:
        Undefined: if they have no value, or at fewer than `MIN_POINTS` points.
    """
    names = symbols(a) | symbols(b)
    if not names:
        return _constants_equal(a, b)
    pairs = values_at_points(a, b, names)
    if len(pairs) < MIN_POINTS:
        raise Undefined("defined at too few points")
    return all(values_equal(x, y) for x, y in pairs)


def _constants_equal(a: Node, b: Node) -> bool:
    x, y = evaluate(a, {}), evaluate(b, {})
    if values_equal(x, y):
        return True
    for decimal, exact, exact_value in ((a, b, y), (b, a, x)):
        if _has_decimal(decimal) and not _has_decimal(exact) and not _has_finite_expansion(exact_value):
            return values_equal(x, y, DECIMAL_TOLERANCE)
    return False


def values_equal(x: Value, y: Value, tolerance: float = 0.0) -> bool:
    """Whether two values are equal within a relative tolerance; by default fractions exactly, floats up to rounding."""
    if isinstance(x, Fraction) and isinstance(y, Fraction) and not tolerance:
        return x == y
    try:
        x, y = complex(x), complex(y)
    except OverflowError:
        return False
    size = max(abs(x), abs(y))
    return abs(x - y) <= max(FLOAT_TOLERANCE * max(1.0, size), tolerance * size)


def values_at_points(a: Node, b: Node, names: Iterable[str]) -> list[tuple[Value, Value]]:
    """The values of both expressions at those of `NUM_POINTS` fixed points where both are defined."""
    pairs = []
    for trial in range(NUM_POINTS):
        point = {name: _coordinate(name, trial) for name in names}
        with suppress(Undefined):
            pairs.append((evaluate(a, point), evaluate(b, point)))
    return pairs


def _coordinate(name: str, trial: int) -> Fraction:
    """A number in general position, the same on every call: positive at the first point, of either sign elsewhere."""
    noise = crc32(f"{trial} {name}".encode())
    size = Fraction(257 + 2 * (noise % 1024), 1024)
    return -size if trial and noise >> 16 & 1 else size


def _has_finite_expansion(value: Value) -> bool:
    if not isinstance(value, Fraction):
        return False
    rest = value.denominator
    rest >>= (rest & -rest).bit_length() - 1
    return 5 ** (MAX_BITS // 2) % rest == 0


def _has_decimal(node: Node) -> bool:
    """Whether a numeral in the expression has decimals: no other numeral has a denominator."""
    return (node.value is not None and node.value.denominator != 1) or any(map(_has_decimal, node.arguments))
