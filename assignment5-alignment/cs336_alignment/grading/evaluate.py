"""Values of expressions at given points, in bounded time: exact fractions as long as they stay small, else floats."""

import cmath
import math
from collections.abc import Mapping
from fractions import Fraction

from cs336_alignment.grading.expression import Node

Value = Fraction | complex

MAX_BITS = 8_192
"""A fraction whose numerator or denominator has more bits goes on as a float."""
MAX_FACTORIAL = 500

_CONSTANTS = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_FUNCTIONS = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda x: 1 / cmath.tan(x),
    "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x),
    "asin": cmath.asin,
    "acos": cmath.acos,
    "atan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "log": cmath.log,
    "ln": cmath.log,
    "exp": cmath.exp,
}


class Undefined(ArithmeticError):
    """The expression has no value at this point, or none that is within bounds."""


def evaluate(node: Node, point: Mapping[str, Fraction]) -> Value:
    """The value of the expression where its symbols take the values of `point`.

    Raises:
        Undefined: at a pole, beyond the range of floats, for a factorial above `MAX_FACTORIAL`.
    """
    try:
        value = _evaluate(node, point)
    except (ArithmeticError, ValueError) as error:  # what cmath, math and Fraction raise
        raise Undefined(str(error)) from error
    if isinstance(value, complex) and not cmath.isfinite(value):
        raise Undefined("beyond the range of floats")
    return value


def _evaluate(node: Node, point: Mapping[str, Fraction]) -> Value:
    if node.operation == "number":
        return _bounded(node.value)
    if node.operation == "symbol":
        return point[node.name]
    if node.operation == "constant":
        return _CONSTANTS[node.name]
    arguments = [_evaluate(argument, point) for argument in node.arguments]
    if node.operation == "call":
        return _call(node.name, arguments)
    return _bounded(_OPERATIONS[node.operation](*arguments))


def _bounded(value: Value) -> Value:
    exact = isinstance(value, Fraction)
    small = exact and max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS
    return value if small or not exact else complex(value)


def _both(a: Value, b: Value) -> tuple[Value, Value]:
    """The two as fractions if both are exact, else both as floats: Python has no fraction times complex number."""
    return (a, b) if isinstance(a, Fraction) and isinstance(b, Fraction) else (complex(a), complex(b))


def _add(a: Value, b: Value) -> Value:
    a, b = _both(a, b)
    return a + b


def _multiply(a: Value, b: Value) -> Value:
    a, b = _both(a, b)
    return a * b


def _divide(a: Value, b: Value) -> Value:
    a, b = _both(a, b)
    return a / b


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent.numerator) <= MAX_BITS or base in (0, 1, -1):
            return base ** (exponent if base not in (1, -1) else exponent % 2)
    if exponent == 0:
        return Fraction(1)
    return complex(base) ** complex(exponent)


def _whole(value: Value) -> int | None:
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else None


def _real(value: Value) -> float:
    number = complex(value)
    if number.imag:
        raise Undefined("a function of real numbers at a complex one")
    return number.real


def _factorial(value: Value) -> Value:
    """The factorial of a whole number; elsewhere the gamma function, so that identities such as n! = n (n-1)! hold."""
    whole = _whole(value)
    if whole is None:
        return complex(math.gamma(_real(value) + 1))
    if not 0 <= whole <= MAX_FACTORIAL:
        raise Undefined("a factorial out of bounds")
    return Fraction(math.factorial(whole))


def _binomial(n: Value, k: Value) -> Value:
    whole_n, whole_k = _whole(n), _whole(k)
    if whole_k is not None and 0 <= whole_k <= MAX_FACTORIAL:
        if whole_n is not None and 0 <= whole_n <= MAX_FACTORIAL:
            return Fraction(math.comb(whole_n, whole_k))
        falling = Fraction(1)
        for step in range(whole_k):
            falling = _bounded(_multiply(falling, _divide(_add(n, Fraction(-step)), Fraction(step + 1))))
        return falling
    return _divide(_factorial(n), _multiply(_factorial(k), _factorial(_add(n, _multiply(Fraction(-1), k)))))


_OPERATIONS = {
    "add": _add,
    "multiply": _multiply,
    "divide": _divide,
    "negate": lambda value: -value,
    "power": _power,
    "factorial": _factorial,
    "binom": _binomial,
}


def _call(function: str, arguments: list[Value]) -> Value:
    if function == "root":
        return _root(*arguments)
    if function == "log_base":
        base, argument = map(complex, arguments)
        return cmath.log(argument) / cmath.log(base)
    (argument,) = arguments
    if function == "abs":
        return abs(argument) if isinstance(argument, Fraction) else complex(abs(argument))
    if function in ("floor", "ceil"):
        number = argument if isinstance(argument, Fraction) else _real(argument)
        return _bounded(Fraction(math.floor(number) if function == "floor" else math.ceil(number)))
    return _FUNCTIONS[function](complex(argument))


def _root(index: Value, radicand: Value) -> Value:
    if index == 2:
        return cmath.sqrt(complex(radicand))
    odd = _whole(index) is not None and _whole(index) % 2 == 1
    if odd and isinstance(radicand, Fraction) and radicand < 0:
        return -(complex(-radicand) ** (1 / complex(index)))  # the real root: the cube root of -8 is -2
    return complex(radicand) ** (1 / complex(index))


def symbols(node: Node) -> set[str]:
    """The names of the free symbols."""
    if node.operation == "symbol":
        return {node.name}
    return set().union(*map(symbols, node.arguments))
