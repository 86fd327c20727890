"""A language model of word n-grams for judging documents by their perplexity, as CCNet does (Wenzek et al. 2020).

CCNet trains a 5-gram model with KenLM on Wikipedia, and cuts a crawl by its perplexity into a head, a middle and a tail
of equal size. Here the model is `kneser_ney.py`; words are lower-cased, digits become 0, lines are sentences.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_data.kneser_ney import END, START, UNKNOWN, Order, estimate, log_probabilities
from cs336_data.words import words_of

SPECIAL_WORDS = ("<unk>", "<s>", "</s>")
HEAD, MIDDLE, TAIL = "head", "middle", "tail"
BUCKETS = (HEAD, MIDDLE, TAIL)
MAX_ORDER = 8
_DIGIT = re.compile(r"\d")


def sentences(text: str) -> Iterator[list[str]]:
    """The words of each line that has any, lower-cased, digits as 0."""
    for line in text.splitlines():
        if words := words_of(_DIGIT.sub("0", line.lower())):
            yield words


@dataclass(frozen=True)
class NgramModel:
    """Smoothed n-grams of words, and the perplexities at which a crawl is cut.

    Attributes:
        vocabulary: the words; the first three are unknown word, beginning and end of a sentence.
        orders: the n-grams of each length; see `kneser_ney.Order`.
        head: greatest perplexity of the head.
        middle: greatest perplexity of the middle.
    """

    vocabulary: tuple[str, ...]
    orders: list[Order]
    head: float = float("inf")
    middle: float = float("inf")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.vocabulary)}

    def encode(self, text: str) -> Int64[np.ndarray, "words"]:
        """The text's sentences in a row, as indices into the vocabulary."""
        return _encode(sentences(text), self._index)

    def perplexity(self, text: str) -> float:
        """10 to the mean of -log10 p over words and ends of sentences; infinite for a text without words."""
        return self.corpus_perplexity([text])

    def corpus_perplexity(self, texts: Iterable[str]) -> float:
        """The perplexity of texts together."""
        total, count = 0.0, 0
        for text in texts:
            words = self.encode(text)
            total -= log_probabilities(words, self.orders, len(self.vocabulary)).sum()
            count += int((words != START).sum())
        # Without overflow: unknown words alone may cost thousands of digits in no sane model, but files can be any.
        return float(10 ** min(total / count, 300.0)) if count else float("inf")

    def bucket(self, perplexity: float) -> str:
        """ "head", "middle" or "tail"."""
        return HEAD if perplexity <= self.head else MIDDLE if perplexity <= self.middle else TAIL

    def with_buckets(self, texts: Sequence[str]) -> "NgramModel":
        """The model with limits that cut these texts into three equal parts."""
        found = [perplexity for perplexity in map(self.perplexity, texts) if np.isfinite(perplexity)]
        if not found:
            raise UsageError("there is no text with words to set the buckets by")
        head, middle = np.quantile(found, [1 / 3, 2 / 3]).tolist()
        return replace(self, head=head, middle=middle)

    def sizes(self) -> dict[int, int]:
        """The number of n-grams by length."""
        return {length: len(order.keys) for length, order in enumerate(self.orders, 1)}

    def save(self, path: str | os.PathLike) -> None:
        """Write the model as a compressed `.npz`: sorted keys as differences, logarithms as float32."""
        arrays = {
            "vocabulary": np.frombuffer("\n".join(self.vocabulary).encode(), dtype=np.uint8),
            "limits": np.array([self.head, self.middle]),
        }
        for length, order in enumerate(self.orders, 1):
            arrays[f"steps_{length}"] = _smallest(np.diff(order.keys, prepend=0))
            arrays[f"probability_{length}"] = order.log_probability
            arrays[f"backoff_{length}"] = order.log_backoff
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays)
        load_ngram_model.cache_clear()


@lru_cache(maxsize=2)
def load_ngram_model(path: str) -> NgramModel:
    """The model in a file that `NgramModel.save` wrote; loaded once per process.

    Raises:
        UsageError: there is no such file, or it is no such model.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            vocabulary = tuple(arrays["vocabulary"].tobytes().decode().split("\n"))
            head, middle = arrays["limits"].tolist()
            orders = []
            while f"steps_{len(orders) + 1}" in arrays:
                length = len(orders) + 1
                keys = np.cumsum(arrays[f"steps_{length}"], dtype=np.int64)
                orders.append(Order(keys, arrays[f"probability_{length}"], arrays[f"backoff_{length}"]))
            return NgramModel(vocabulary, orders, head, middle)
    except FileNotFoundError:
        raise UsageError(f"n-gram model {path!r} is no file") from None
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UsageError(f"{path!r} is no n-gram model: {error}") from None


def train_ngram_model(texts: Sequence[str], order: int = 5, max_vocabulary: int = 65_536) -> NgramModel:
    """A model of texts; rarer words than the vocabulary holds count as unknown.

    Args:
        texts: what to model.
        order: length of the longest n-grams, from 1 to 8.
        max_vocabulary: number of words, at least 4, with the three special ones.

    Raises:
        UsageError: a number is out of range, or there is no word.
    """
    if not 1 <= order <= MAX_ORDER:
        raise UsageError(f"order {order} is out of range: it must be from 1 to {MAX_ORDER}")
    if max_vocabulary <= len(SPECIAL_WORDS):
        raise UsageError(f"a vocabulary of {max_vocabulary} words is too small: it must have at least 4")
    lines = [words for text in tqdm(texts, desc="words", unit="text", disable=None) for words in sentences(text)]
    counts = Counter(word for words in lines for word in words)
    if not counts:
        raise UsageError("there is no word in the texts to train on")
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: max_vocabulary - len(SPECIAL_WORDS)]
    vocabulary = (*SPECIAL_WORDS, *frequent)
    index = {word: number for number, word in enumerate(vocabulary)}
    return NgramModel(vocabulary, estimate(_encode(lines, index), len(vocabulary), order))


def _encode(lines: Iterable[list[str]], index: dict[str, int]) -> np.ndarray:
    encoded: list[int] = []
    for words in lines:
        encoded.append(START)
        encoded.extend(index.get(word, UNKNOWN) for word in words)
        encoded.append(END)
    return np.array(encoded, dtype=np.int64)


def _smallest(steps: np.ndarray) -> np.ndarray:
    return steps.astype(np.min_scalar_type(int(steps.max(initial=0))))
