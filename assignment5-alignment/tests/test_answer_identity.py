"""The value-based comparison against sympy on random expressions, and its numbers against Python's."""

import math
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.grading.equivalence import answers_equal
from cs336_alignment.grading.evaluate import Undefined, evaluate
from cs336_alignment.grading.expression import parse_expression
from cs336_alignment.grading.notation import normalize_notation
from cs336_alignment.grading.tokens import NotMathematics, tokenize

X, Y = sympy.symbols("x y")

numbers = st.integers(-9, 9).map(sympy.Integer) | st.builds(sympy.Rational, st.integers(-9, 9), st.integers(1, 9))
expressions = st.recursive(
    numbers | st.sampled_from([X, Y, sympy.pi, sympy.sqrt(2)]),
    lambda inner: st.one_of(
        st.builds(sympy.Add, inner, inner),
        st.builds(sympy.Mul, inner, inner),
        st.builds(lambda base, power: sympy.Pow(base, power), inner, st.integers(1, 3)),
    ),
    max_leaves=6,
)


def value_of(text, **point):
    return evaluate(parse_expression(tokenize(normalize_notation(text))), point)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(expressions)
def test_an_expression_equals_its_expansion_in_latex_and_in_plain_text(expression):
    expanded = sympy.expand(expression)
    assert answers_equal(sympy.latex(expression), sympy.latex(expanded))
    assert answers_equal(str(expression), sympy.latex(expanded))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(expressions, expressions)
def test_two_expressions_are_equal_exactly_if_sympy_says_so(a, b):
    assert answers_equal(sympy.latex(a), sympy.latex(b)) == (sympy.expand(a - b) == 0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6), st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_fractions_are_compared_exactly(a, b, c, d):
    equal = Fraction(a, b) == Fraction(c, d)
    assert answers_equal(rf"\frac{{{a}}}{{{b}}}", f"{c}/{d}") == equal
    assert answers_equal(rf"\dfrac{{{a}}}{{{b}}}", rf"\frac{{{3 * a}}}{{{3 * b}}}")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_thousands_separators_do_not_change_a_number(a, b):
    assert answers_equal(f"{a:,}", str(a))
    assert answers_equal(f"{a:,}".replace(",", r",\!"), str(a))
    assert answers_equal(f"{a:,}", f"{b:,}") == (a == b)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\sin 1", math.sin(1)),
        (r"\tan^2 1", math.tan(1) ** 2),
        (r"\sec 1 + \csc 1", 1 / math.cos(1) + 1 / math.sin(1)),
        (r"\cosh 1 - \sinh 1 + \tanh 1", math.exp(-1) + math.tanh(1)),
        (r"\log_{10} 50", math.log10(50)),
        (r"\ln 3x", math.log(6)),
        (r"e^{-\frac{x^2}{2}}", math.exp(-2)),
        (r"\sqrt[4]{3}", 3**0.25),
        (r"\arctan 3", math.atan(3)),
        (r"\sqrt{\sqrt{3}+|x-5|}", math.sqrt(math.sqrt(3) + 3)),
        (r"\lceil 2.5 \rceil - \lfloor -2.5 \rfloor", 6),
        (r"-2^2", -4),
        (r"2^{3^2}", 512),
        (r"6/2(1+2)", 9),
        (r"3.5!", math.gamma(4.5)),
        (r"2x^2y", 24),
    ],
)
def test_values_are_those_of_the_standard_library(text, value):
    assert value_of(text, x=Fraction(2), y=Fraction(3)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["1/0", "9^9^9^9", "501!", "(-1)!", "10^{10^{10}}", "0^{-1}", r"\ln 0", "2^{9999999}"])
def test_what_has_no_value_within_bounds_is_undefined(text):
    with pytest.raises(Undefined):
        value_of(text)


@pytest.mark.parametrize(
    "text",
    ["", "1+", "(1", "1)", "2 3", r"\frac{1}", r"\unknown{1}@", "(" * 60 + "1" + ")" * 60, "1+" * 500 + "1", "1e9999"],
)
def test_what_is_no_expression_or_too_large_is_not_read(text):
    with pytest.raises(NotMathematics):
        value_of(text)
