"""The chance that at least one of k responses is right, estimated from n sampled ones, and how sure it is.

Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv:2107.03374), equation 1.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cs336_basics.command_line import UsageError
from cs336_basics.confidence import Interval, wilson_interval

RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The unbiased estimate for one problem: 1 - C(n-c, k) / C(n, k).

    That is the share of all choices of k among the n samples that hold a right one. It is computed as a product,
    1 - prod_{i=n-c+1}^{n} (1 - k/i), so that no binomial coefficient overflows.

    Args:
        num_samples: n, the responses sampled.
        num_correct: c, how many of them are right.
        k: 1 to n.

    Raises:
        UsageError: k or c is out of range.
    """
    if not 1 <= k <= num_samples:
        raise UsageError(f"pass@{k} cannot be estimated from {num_samples} samples: k must be 1 to {num_samples}")
    if not 0 <= num_correct <= num_samples:
        raise UsageError(f"{num_correct} right responses of {num_samples} cannot be: it must be 0 to {num_samples}")
    if num_samples - num_correct < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(num_samples - num_correct + 1, num_samples + 1)))


def mean_interval(values: Sequence[float], seed: int = 0) -> Interval | None:
    """95 % confidence interval of the mean over problems; None if there are none.

    Shares of problems (nothing but zeros and ones) get Wilson's interval, everything else the percentile bootstrap:
    problems are drawn anew, with replacement (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: one per problem, each in [0, 1].
        seed: of the bootstrap.
    """
    if not values:
        return None
    if all(value in (0, 1) for value in values):
        return wilson_interval(int(sum(values)), len(values))
    low, high = np.quantile(bootstrap_means(np.asarray(values, dtype=float), seed), (0.025, 0.975))
    return Interval(float(low), float(high))


def bootstrap_means(values: Float[np.ndarray, " problem"], seed: int = 0) -> Float[np.ndarray, " resample"]:
    """The means of `RESAMPLES` samples as large as the given one, drawn from it with replacement."""
    random = np.random.default_rng(seed)
    means = [
        values[random.integers(0, len(values), (_RESAMPLES_AT_ONCE, len(values)))].mean(axis=1)
        for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    return np.concatenate(means)
