"""Choices that are the same on every machine.

Only `random.Random.random` is used, whose sequence Python promises to keep for a seed; `choice` and `shuffle` have
changed between versions.
"""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices(random.Random):
    """A source of choices, from a text such as "3/page/17"."""

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self.random() * len(options))]

    def pick_weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, each as often as its weight says."""
        left = self.random() * sum(weights.values())
        for option, weight in weights.items():
            left -= weight
            if left < 0:
                return option
        return next(reversed(weights))

    def some(self, options: Sequence[T], number: int) -> list[T]:
        """Several different options, in a random order; all of them if there are not that many."""
        rest = list(options)
        return [rest.pop(int(self.random() * len(rest))) for _ in range(min(number, len(rest)))]

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.random() * (high - low + 1))

    def happens(self, probability: float) -> bool:
        """True as often as `probability` says."""
        return self.random() < probability
