"""Chains of sums and differences, such as 27+8-19, and their two kinds of solution: at once, or step by step."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

GREATEST = 99
"""Operands and all intermediate results lie between 0 and this, so every step is a fact about two-digit numbers."""
GREATEST_OPERAND = 9
"""Of every operand."""


@dataclass(frozen=True)
class Chain:
    """A problem: a first number, then terms to add or subtract from left to right.

    Attributes:
        first: the number it starts with.
        terms: the signed numbers that follow; the sign is the operation.
    """

    first: int
    terms: tuple[int, ...]

    @property
    def text(self) -> str:
        """As a formula, without spaces."""
        return str(self.first) + "".join(f"{term:+d}" for term in self.terms)

    @property
    def totals(self) -> list[int]:
        """The running total after each term; the last one is the result."""
        totals = [self.first]
        for term in self.terms:
            totals.append(totals[-1] + term)
        return totals[1:]

    @property
    def result(self) -> int:
        """What it comes to."""
        return self.first + sum(self.terms)

    @property
    def steps(self) -> str:
        """The calculation, one operation at a time: "27+8=35 35-19=16"."""
        before = [self.first, *self.totals]
        return " ".join(f"{total}{term:+d}={total + term}" for total, term in zip(before, self.terms, strict=False))


def draw_chain(random_numbers: random.Random, num_terms: Sequence[int]) -> Chain:
    """A random problem whose running totals all lie between 0 and `GREATEST`.

    Args:
        random_numbers: the source of randomness.
        num_terms: how many terms may follow the first number; one of these is drawn.
    """
    first = total = random_numbers.randint(1, GREATEST_OPERAND)
    terms = []
    for _ in range(random_numbers.choice(num_terms)):
        term = random_numbers.randint(1, GREATEST_OPERAND)
        may_add, may_subtract = total + term <= GREATEST, total - term >= 0
        adds = may_add and (not may_subtract or random_numbers.random() < 0.5)
        terms.append(term if adds else -term)
        total += terms[-1]
    return Chain(first, tuple(terms))
