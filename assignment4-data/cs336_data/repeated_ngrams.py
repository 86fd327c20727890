"""Which words of a text lie in n-grams that occur again: counts over whole arrays, exact (no hashing)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int


class NgramRepetitions:
    """The n-grams of a sequence of words, numbered so that equal ones, and only those, have equal numbers."""

    def __init__(self, words: Sequence[str]) -> None:
        vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
        self._words = np.array([vocabulary[word] for word in words], dtype=np.int64)
        self._lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        self._ngrams = {1: self._words}
        self._none = np.zeros(len(words), dtype=bool)

    def most_frequent(self, n: int) -> Bool[np.ndarray, " words"]:
        """For each word, whether it lies in the n-gram that occurs most often, or in none if each occurs once.

        Of equally frequent n-grams the longest in characters counts, then the first.
        """
        ngrams = self._numbered(n)
        if _all_distinct(ngrams):
            return self._none
        counts = np.bincount(ngrams)
        greatest = counts.max()
        ends = np.concatenate([[0], np.cumsum(self._lengths)])
        lengths = ends[n:] - ends[:-n]
        chosen = ngrams[np.argmax(np.where(counts[ngrams] == greatest, lengths, -1))]
        return self._covered(ngrams == chosen, n)

    def copied(self, n: int) -> Bool[np.ndarray, " words"]:
        """For each word, whether it lies in an n-gram that occurred before."""
        ngrams = self._numbered(n)
        if _all_distinct(ngrams):
            return self._none
        places = np.arange(len(ngrams))
        first = np.empty(len(ngrams), dtype=np.int64)
        first[ngrams[::-1]] = places[::-1]  # of several values for one index the last stays: the first place
        return self._covered(first[ngrams] != places, n)

    def share_of_characters(self, covered: Bool[np.ndarray, " words"]) -> float:
        """Characters of the covered words among those of all words; 0 for no words."""
        total = self._lengths.sum()
        return float(self._lengths[covered].sum() / total) if total else 0.0

    def _numbered(self, n: int) -> Int[np.ndarray, " ngrams"]:
        """The number of the n-gram that begins at each word."""
        if n not in self._ngrams:
            shorter = self._numbered(n - 1)
            if _all_distinct(shorter):  # so are longer ones
                return shorter[: len(self._words) - n + 1]
            # An n-gram is an (n-1)-gram and a word: both numbers are less than the number of words, W, and W² < 2⁶³.
            pairs = shorter[:-1] * max(len(self._words), 1) + self._words[n - 1 :]
            self._ngrams[n] = np.unique(pairs, return_inverse=True)[1]
        return self._ngrams[n]

    def _covered(self, starts: Bool[np.ndarray, " ngrams"], n: int) -> Bool[np.ndarray, " words"]:
        """The words of the n-grams that begin where `starts` is set."""
        changes = np.zeros(len(self._words) + 1, dtype=np.int64)
        begin = np.flatnonzero(starts)
        changes[begin] += 1
        changes[begin + n] -= 1
        return np.cumsum(changes[:-1]) > 0


def _all_distinct(numbers: Int[np.ndarray, " ngrams"]) -> bool:
    """Whether no number occurs twice; they are 0, 1, … without gaps, but for a cut end."""
    return not len(numbers) or int(numbers.max()) + 1 >= len(numbers)
