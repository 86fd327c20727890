"""Fitting the model of text statistics: reference pages against pages of a crawl, each in many disguises."""

import random
from collections.abc import Sequence

import numpy as np

from cs336_data.logistic_regression import LogisticModel, fit_logistic
from cs336_data.page_disguise import as_page, excerpt
from cs336_data.quality_statistics import quality_statistics

REFERENCE_COPIES, CRAWL_COPIES = 8, 2
MIN_WORDS_LOG2, MAX_WORDS_LOG2 = 6.0, 12.0
PENALTY = 10.0


def fit_quality_model(reference: Sequence[str], crawl: Sequence[str], seed: int = 0) -> LogisticModel:
    """The logistic model that tells reference pages from pages of a crawl by `quality_statistics`.

    Clean articles of one length would teach it that works of reference are long and have no menus. So each is taken in
    excerpts of 64 to 4,096 words, half of them within what a page shows around its text; so are half of the others.

    Args:
        reference: texts of works of reference.
        crawl: texts of any pages.
        seed: of excerpts and disguises.

    Raises:
        UsageError: one of the two is empty.
    """
    choices = random.Random(seed)
    wiki = [_variant(text, choices, is_reference=True) for text in reference for _ in range(REFERENCE_COPIES)]
    cc = [_variant(text, choices, is_reference=False) for text in crawl for _ in range(CRAWL_COPIES)]
    features = np.array([quality_statistics(text) for text in wiki + cc])
    labels = np.repeat([1.0, 0.0], [len(wiki), len(cc)])
    return fit_logistic(features, labels, penalty=PENALTY)


def _variant(text: str, choices: random.Random, *, is_reference: bool) -> str:
    if is_reference or choices.random() < 0.5:
        text = excerpt(text, choices, int(2 ** choices.uniform(MIN_WORDS_LOG2, MAX_WORDS_LOG2)))
    return as_page(text, choices, references=is_reference) if choices.random() < 0.5 else text
