"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, "An empirical study of smoothing techniques for
language modeling", section 4; the estimate that KenLM makes, Heafield et al. 2013).

The probability of a word w after the context h, with h' the context without its first word:

    p(w | h) = (c(h w) - D(c(h w))) / sum_v c(h v)  +  gamma(h) p(w | h')
    gamma(h) = (D1 N1(h) + D2 N2(h) + D3 N3+(h)) / sum_v c(h v)

c counts occurrences for the longest n-grams; for shorter ones it counts the different words that stand before them, but
occurrences for those that begin a sentence, before which nothing can stand. Nk(h) is the number of words with count k
after h (3+: three or more), and the discounts D follow from how many n-grams of an order have the counts 1 to 4.
Below the single words lies the uniform distribution over all words but the beginning of a sentence, which is never
predicted.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

UNKNOWN, START, END = 0, 1, 2
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For texts too small to have n-grams of each count, as KenLM's --discount_fallback."""


class Order(NamedTuple):
    """The n-grams of one length, sorted by context and last word.

    Attributes:
        keys: for each n-gram the index of its context (its words but the last) among the n-grams one shorter, times
            the size of the vocabulary, plus its last word; for single words the word itself.
        log_probability: log10 p(last word | context).
        log_backoff: log10 gamma, with the n-gram as a context; 0 where nothing follows it.
    """

    keys: Int64[np.ndarray, "ngrams"]
    log_probability: Float32[np.ndarray, "ngrams"]
    log_backoff: Float32[np.ndarray, "ngrams"]


def estimate(words: Int64[np.ndarray, "words"], num_words: int, order: int) -> list[Order]:
    """The smoothed n-grams of a text.

    Args:
        words: sentences in a row, each from `START` to `END`.
        num_words: size of the vocabulary.
        order: length of the longest n-grams, at least 1.

    Returns:
        One `Order` for each length from 1 to `order`.
    """
    positions = _positions_in_sentence(words)
    keys: list[np.ndarray] = [np.arange(num_words)]
    counts = [np.bincount(words, minlength=num_words)]
    suffixes: list[np.ndarray] = [np.zeros(num_words, dtype=np.int64)]
    ngram_at = words  # which n-gram of the present length ends at a place of the text
    for length in range(2, order + 1):
        ends = np.flatnonzero(positions >= length - 1)
        found, first, inverse, occurrences = np.unique(
            ngram_at[ends - 1] * num_words + words[ends], return_index=True, return_inverse=True, return_counts=True
        )
        shorter = ngram_at[ends[first]]  # the n-gram without its first word ends at the same place
        before = np.bincount(shorter, minlength=len(keys[-1]))
        counts[-1] = np.where(before > 0, before, counts[-1])
        keys.append(found)
        counts.append(occurrences)
        suffixes.append(shorter)
        ngram_at = np.full_like(words, -1)
        ngram_at[ends] = inverse
    counts[0][START] = 0
    return _smooth(keys, counts, suffixes, num_words)


def _positions_in_sentence(words: np.ndarray) -> np.ndarray:
    starts = np.where(words == START, np.arange(len(words)), 0)
    return np.arange(len(words)) - np.maximum.accumulate(starts)


def _smooth(keys: list, counts: list, suffixes: list, num_words: int) -> list[Order]:
    predicted = num_words - 1
    lower = np.full(1, 1.0 / predicted)  # p of the order below
    orders: list[Order] = []
    for length, (key, count, suffix) in enumerate(zip(keys, counts, suffixes, strict=True), 1):
        context = key // num_words if length > 1 else np.zeros(num_words, dtype=np.int64)
        num_contexts = len(keys[length - 2]) if length > 1 else 1
        discount = np.array([0.0, *discounts(count)])[np.minimum(count, 3)]
        total = np.bincount(context, weights=count, minlength=num_contexts)
        freed = np.bincount(context, weights=discount, minlength=num_contexts)
        followed = total > 0
        gamma = np.where(followed, freed / np.maximum(total, 1), 1.0)
        probability = (count - discount) / np.maximum(total, 1)[context] + gamma[context] * lower[suffix]
        if length == 1:
            probability[START] = 0.0
        else:
            orders[-1] = orders[-1]._replace(log_backoff=_log10(gamma))
        orders.append(Order(key, _log10(probability), np.zeros(len(key), dtype=np.float32)))
        lower = probability
    return orders


def discounts(counts: Int64[np.ndarray, "ngrams"]) -> tuple[float, float, float]:
    """D1, D2 and D3+ from the counts of all n-grams of an order (Chen and Goodman, equation 26)."""
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    if 0 in (n1, n2, n3, n4):
        return FALLBACK_DISCOUNTS
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    # As KenLM: an estimate below 0 (or, by rounding, above the count) is none.
    return found if all(0 < d <= k for k, d in enumerate(found, 1)) else FALLBACK_DISCOUNTS


def log_probabilities(
    words: Int64[np.ndarray, "words"], orders: list[Order], num_words: int
) -> Float64[np.ndarray, "words"]:
    """log10 p of each word after the words before it in its sentence; those of `START` are 0.

    Args:
        words: sentences in a row, each from `START` to `END`.
        orders: the model.
        num_words: size of the vocabulary.
    """
    positions = _positions_in_sentence(words)
    result = orders[0].log_probability[words].astype(np.float64)
    ngram_at = words
    for length in range(2, len(orders) + 1):
        shorter, longer = orders[length - 2], orders[length - 1]
        context = np.concatenate([[-1], ngram_at[:-1]])
        context[positions < length - 1] = -1
        known = np.flatnonzero(context >= 0)
        result[known] += shorter.log_backoff[context[known]]
        wanted = context[known] * num_words + words[known]
        place = np.searchsorted(longer.keys, wanted)
        hit = place < len(longer.keys)
        hit[hit] = longer.keys[place[hit]] == wanted[hit]
        ngram_at = np.full_like(words, -1)
        ngram_at[known[hit]] = place[hit]
        result[known[hit]] = longer.log_probability[place[hit]]
    result[words == START] = 0.0
    return result


def _log10(probability: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(probability, 1e-30)).astype(np.float32)
