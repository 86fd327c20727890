"""Data selection by importance resampling, DSIR (Xie et al. 2023, "Data Selection for Language Models via Importance
Resampling").

Texts become counts of hashed n-grams (words and pairs of words, sections 3 and 4). Two bags of n-grams are estimated,
one on the target and one on the raw texts; a raw text's log importance weight is the log-likelihood ratio of the two.
Texts are then drawn in proportion to their weights without replacement, by the k greatest log weights plus noise.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from zipfile import BadZipFile

import numpy as np
import xxhash
from jaxtyping import Float64, Int64

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_data.words import words_of

_PAIR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing
_MIX = np.uint64(0xD6E8FEB86659FD93)


@lru_cache(maxsize=1 << 17)
def _word_hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.encode("utf-8", "replace"))


def hashed_ngrams(text: str, num_buckets: int) -> Int64[np.ndarray, "ngrams"]:
    """The hash buckets of a text's words and of its pairs of neighboring words."""
    words = np.fromiter(map(_word_hash, words_of(text.lower())), dtype=np.uint64)
    pairs = words[:-1] * _PAIR + words[1:]  # wraps around
    pairs = (pairs ^ (pairs >> np.uint64(32))) * _MIX
    return (np.concatenate([words, pairs]) % np.uint64(num_buckets)).astype(np.int64)


@dataclass(frozen=True)
class ImportanceModel:
    """Log-likelihood ratios of hashed n-grams, and the limit for one text at a time.

    Attributes:
        log_ratios: ln p_target - ln p_raw of each bucket.
        threshold: the perturbed log weight that the share to keep of the raw texts reached.
        seed: of the Gumbel noise.
    """

    log_ratios: Float64[np.ndarray, "buckets"]
    threshold: float
    seed: int = 0

    def log_weight(self, text: str) -> float:
        """ln (p_target(text) / p_raw(text)); 0 for a text without words."""
        return float(self.log_ratios[hashed_ngrams(text, len(self.log_ratios))].sum())

    def is_kept(self, text: str) -> bool:
        """Whether the text's log weight plus its noise reaches the threshold."""
        return self.perturbed(text) >= self.threshold

    def perturbed(self, text: str) -> float:
        """The log weight plus Gumbel noise that depends on the text and the seed alone."""
        return self.log_weight(text) + text_gumbel(text, self.seed)

    def save(self, path: str | os.PathLike) -> None:
        """Write the model as a compressed `.npz`."""
        with atomic_write(path) as file:
            np.savez_compressed(file, log_ratios=self.log_ratios, threshold=self.threshold, seed=self.seed)
        load_importance_model.cache_clear()


@lru_cache(maxsize=4)
def load_importance_model(path: str) -> ImportanceModel:
    """The model in a file that `ImportanceModel.save` wrote; loaded once per process.

    Raises:
        UsageError: there is no such file, or it is no such model.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return ImportanceModel(arrays["log_ratios"], float(arrays["threshold"]), int(arrays["seed"]))
    except FileNotFoundError:
        raise UsageError(f"importance model {path!r} is no file") from None
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UsageError(f"{path!r} is no importance model: {error}") from None


def fit_importance_model(
    target: Iterable[str], raw: Sequence[str], num_buckets: int = 10_000, keep_share: float = 0.1, seed: int = 0
) -> ImportanceModel:
    """Estimate both bags of n-grams (each bucket's count plus 1) and the threshold.

    Args:
        target: texts like those that are wanted.
        raw: texts as they come.
        num_buckets: of the hash; 10,000 in the paper.
        keep_share: the share of the raw texts to keep, in (0, 1].
        seed: of the noise.

    Raises:
        UsageError: a number is out of range, or one of the two is empty.
    """
    if num_buckets < 1:
        raise UsageError(f"{num_buckets} buckets are too few: at least 1 is needed")
    if not 0 < keep_share <= 1:
        raise UsageError(f"share {keep_share} to keep is out of range: it must be greater than 0 and at most 1")
    log_ratios = _log_bag(target, num_buckets) - _log_bag(raw, num_buckets)
    model = ImportanceModel(log_ratios, -np.inf, seed)
    scores = [model.perturbed(text) for text in raw]
    return ImportanceModel(log_ratios, float(np.quantile(scores, 1 - keep_share)), seed)


def _log_bag(texts: Iterable[str], num_buckets: int) -> np.ndarray:
    counts = np.ones(num_buckets)
    for text in texts:
        counts += np.bincount(hashed_ngrams(text, num_buckets), minlength=num_buckets)
    if counts.sum() == num_buckets:
        raise UsageError("there is no word in the texts to fit importance weights on")
    return np.log(counts / counts.sum())


def resample(log_weights: Float64[np.ndarray, "texts"], count: int, seed: int = 0) -> Int64[np.ndarray, "count"]:
    """Draw texts in proportion to their weights, without replacement (Gumbel top-k; Kool et al. 2019).

    Args:
        log_weights: of the texts, up to a common constant.
        count: how many to draw, from 0 to the number of texts.
        seed: of the noise.

    Returns:
        The indices of the drawn texts, in the order of the draw.

    Raises:
        UsageError: `count` is out of range.
    """
    if not 0 <= count <= len(log_weights):
        raise UsageError(f"{count} texts cannot be drawn of {len(log_weights)}")
    noise = np.random.default_rng(seed).gumbel(size=len(log_weights))
    return np.argsort(-(log_weights + noise), kind="stable")[:count]


def text_gumbel(text: str, seed: int) -> float:
    """A standard Gumbel variate that depends on the text and the seed alone."""
    uniform = (xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace"), seed=seed) + 0.5) / 2**64
    return float(-np.log(-np.log(min(uniform, 1 - 2**-53))))
