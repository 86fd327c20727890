"""Importance weights against their definition, the draw against its distribution, and the filter."""

import math
import pickle
from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.filters.importance import ImportanceFilter
from cs336_data.importance_weights import (
    fit_importance_model,
    hashed_ngrams,
    load_importance_model,
    resample,
    text_gumbel,
)

TARGET = [f"the harbor was built in {year} by the navy" for year in range(1800, 1840)]
RAW = [f"buy cheap boots {n} now and save" for n in range(150)] + TARGET[:10]


def test_buckets_are_of_words_and_pairs():
    a, b, c = (hashed_ngrams(word, 10**9).tolist() for word in ("red", "green", "blue"))
    found = hashed_ngrams("Red green, blue", 10**9).tolist()
    assert len(found) == 5
    assert found[:3] == a + b + c
    assert found[3:] == hashed_ngrams("red green", 10**9).tolist()[2:] + hashed_ngrams("green blue", 10**9).tolist()[2:]
    assert hashed_ngrams("green red", 10**9).tolist()[2] != found[3]  # order matters
    assert len(hashed_ngrams("", 10)) == 0


def test_buckets_are_evenly_used():
    counts = np.bincount(hashed_ngrams(" ".join(f"w{i}" for i in range(20_000)), 100), minlength=100)
    expected = 39_999 / 100
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 99 + 5 * math.sqrt(2 * 99)


def test_log_weight_is_the_log_ratio_of_two_smoothed_bags():
    buckets = 10**6  # no collisions among so few n-grams
    model = fit_importance_model(TARGET, RAW, num_buckets=buckets)

    def ngrams(text):
        words = text.lower().split()
        return words + list(pairwise(words))

    bags = [Counter(ngram for text in texts for ngram in ngrams(text)) for texts in (TARGET, RAW)]
    totals = [sum(bag.values()) + buckets for bag in bags]
    for text in ("the harbor and the navy", "buy boots", "unheard of"):
        expected = sum(
            math.log((bags[0][ngram] + 1) / totals[0]) - math.log((bags[1][ngram] + 1) / totals[1])
            for ngram in ngrams(text)
        )
        assert model.log_weight(text) == pytest.approx(expected)


def test_draw_follows_the_weights():
    """Gumbel top-k against the probabilities of drawing one after the other without replacement."""
    weights = np.array([1.0, 2.0, 4.0, 0.5])
    trials = 4000
    found = Counter(tuple(resample(np.log(weights), 2, seed).tolist()) for seed in range(trials))
    chi_square = 0.0
    for first, second in permutations(range(4), 2):
        p = weights[first] / weights.sum() * weights[second] / (weights.sum() - weights[first])
        chi_square += (found[first, second] - trials * p) ** 2 / (trials * p)
    assert chi_square < 31.3  # 11 degrees of freedom: 0.1 % lie above


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.floats(-50, 50), max_size=20), st.data())
def test_draw_has_no_text_twice(log_weights, data):
    count = data.draw(st.integers(0, len(log_weights)))
    drawn = resample(np.array(log_weights), count)
    assert len(set(drawn.tolist())) == count
    with pytest.raises(UsageError, match="cannot be drawn"):
        resample(np.array(log_weights), len(log_weights) + 1)


def test_noise_of_texts_is_gumbel_and_repeats():
    noise = [text_gumbel(f"text {i}", seed=3) for i in range(5000)]
    assert np.mean(noise) == pytest.approx(0.5772, abs=0.08)
    assert np.var(noise) == pytest.approx(math.pi**2 / 6, abs=0.2)
    assert text_gumbel("text 0", seed=3) == noise[0] != text_gumbel("text 0", seed=4)


def test_filter_keeps_what_is_like_the_target(tmp_path, monkeypatch):
    model = fit_importance_model(TARGET[10:], RAW, num_buckets=1000, keep_share=10 / 160)
    path = tmp_path / "data/models/importance.npz"
    model.save(path)
    loaded = load_importance_model(str(path))
    assert loaded.log_weight(RAW[0]) == model.log_weight(RAW[0])
    assert [model.is_kept(text) for text in RAW] == [False] * 150 + [True] * 10
    monkeypatch.chdir(tmp_path)
    decide = pickle.loads(pickle.dumps(ImportanceFilter()))
    assert decide(Document(TARGET[0])).keep
    decision = decide(Document(RAW[0]))
    assert not decision.keep
    assert "importance weight" in decision.reason
    assert decision.metadata["importance_log_weight"] < 0


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.text(max_size=100))
def test_never_raises(text):
    model = fit_importance_model(["a b"], ["b c", "c d"], num_buckets=50)
    assert math.isfinite(model.perturbed(text))


def test_bad_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"train_classifier\.py"):
        ImportanceFilter()
    with pytest.raises(UsageError, match="share 0"):
        fit_importance_model(TARGET, RAW, keep_share=0)
    with pytest.raises(UsageError, match="no word"):
        fit_importance_model([], RAW)
    (tmp_path / "bad.npz").write_bytes(b"bad")
    with pytest.raises(UsageError, match="no importance model"):
        ImportanceFilter(model="bad.npz")
