"""pass@k, intervals, the length-controlled win rate, and summaries: against brute force, scipy and torch."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.evaluation.length_control import RIDGE, fit_logistic, length_controlled_win_rate
from cs336_alignment.evaluation.pass_at_k import bootstrap_means, mean_interval, pass_at_k
from cs336_alignment.evaluation.summary import category, summarize
from cs336_basics.command_line import UsageError
from cs336_basics.confidence import wilson_interval

counts = st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@given(counts)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_pass_at_k_is_the_share_of_choices_with_a_right_one(case):
    num_samples, num_correct, k = case
    right = [index < num_correct for index in range(num_samples)]
    choices = list(itertools.combinations(right, k))
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(200, 3, 100), (1000, 1, 999), (10_000, 17, 256), (64, 0, 64), (5, 5, 1)])
def test_pass_at_k_of_many_samples_is_scipys_hypergeometric(n, c, k):
    stats = pytest.importorskip("scipy.stats", reason="needs scipy")
    assert pass_at_k(n, c, k) == pytest.approx(1 - stats.hypergeom(n, c, k).pmf(0), rel=1e-9, abs=1e-12)


def test_pass_at_k_is_unbiased():
    """The estimates of all outcomes of n samples, weighted by their probability, come to 1 - (1 - p)^k."""
    n, p = 6, 0.3
    for k in range(1, n + 1):
        expected = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
        assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k", "named"), [(4, 2, 5, "pass@5"), (4, 2, 0, "pass@0"), (4, 5, 1, "5 right")])
def test_impossible_counts_are_named(n, c, k, named):
    with pytest.raises(UsageError, match=named):
        pass_at_k(n, c, k)


def test_bootstrap_is_that_of_all_resamples():
    """Of four values there are 4^4 samples with replacement: the drawn ones have their distribution."""
    values = np.array([0.0, 0.25, 0.5, 1.0])
    everything = np.array([np.mean(chosen) for chosen in itertools.product(values, repeat=4)])
    drawn = bootstrap_means(values, seed=0)
    for mean, share in zip(*np.unique(everything, return_counts=True), strict=True):
        probability = share / len(everything)
        error = math.sqrt(probability * (1 - probability) / len(drawn))
        assert np.mean(drawn == mean) == pytest.approx(probability, abs=5 * error)
    assert mean_interval(list(values)) == pytest.approx(tuple(np.quantile(everything, (0.025, 0.975))), abs=0.03)


def test_bootstrap_interval_is_scipys():
    stats = pytest.importorskip("scipy.stats", reason="needs scipy")
    values = np.random.default_rng(1).beta(2, 3, size=80)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    ours = mean_interval(list(values))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert ours == mean_interval(list(values)), "the same every time"


def test_shares_get_wilsons_interval():
    assert mean_interval([1, 0, 1.0, 0.0, 0]) == wilson_interval(2, 5)
    assert mean_interval([]) is None


def test_logistic_fit_has_the_gradient_of_the_penalized_likelihood():
    random = np.random.default_rng(0)
    features = np.stack([np.ones(60), random.normal(size=60)], axis=1)
    targets = random.uniform(size=60)
    weights = torch.tensor(fit_logistic(features, targets), requires_grad=True)
    logits = torch.tensor(features) @ weights
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(targets), reduction="sum")
    (loss + RIDGE / 2 * (weights**2).sum()).backward()
    assert weights.grad.abs().max() < 1e-8


def test_length_control_takes_length_out():
    differences = np.random.default_rng(0).normal(scale=300, size=2000)
    win = np.random.default_rng(1).uniform(size=2000) < 1 / (1 + np.exp(-2 * np.tanh(differences / 300)))
    longer = differences > -150  # a model whose answers are mostly longer than the references
    rate = length_controlled_win_rate(win[longer], differences[longer])
    assert win[longer].mean() > 0.6
    assert rate == pytest.approx(0.5, abs=0.05)
    assert length_controlled_win_rate([1.0, 1.0, 0.0, 0.5], [0, 0, 0, 0]) == pytest.approx(0.625, abs=0.01)
    assert 0.99 < length_controlled_win_rate([1.0] * 50, list(range(50))) < 1, "finite where all are won"
    assert length_controlled_win_rate([], []) is None


def response(format_reward, answer_reward, tokens=10, finish_reason="stop"):
    parsed = "x" if format_reward else None
    return {
        "text": "", "parsed": parsed, "format_reward": format_reward, "answer_reward": answer_reward,
        "reward": answer_reward, "tokens": tokens, "finish_reason": finish_reason,
    }  # fmt: skip


RIGHT, WRONG, BAD = response(1.0, 1.0, 4), response(1.0, 0.0, 6), response(0.0, 0.0, 20, "length")


def test_summary_counts_by_hand():
    rows = [
        {"id": "0", "level": "1", "responses": [RIGHT, WRONG]},
        {"id": "1", "level": "2", "responses": [BAD, BAD]},
        {"id": "2", "level": "1", "responses": [RIGHT, RIGHT]},
        {"id": "3", "level": "2", "responses": [response(0.0, 0.0, 0, "prompt")] * 2},
    ]
    summary = summarize(rows, ["level"], [1, 2])
    assert summary["examples"] == 4
    assert summary["samples"] == 2
    assert summary["accuracy"]["value"] == summary["pass_at"]["1"]["value"] == pytest.approx(1.5 / 4)
    assert summary["pass_at"]["2"] == {
        "value": 0.5,
        "low": wilson_interval(2, 4).low,
        "high": wilson_interval(2, 4).high,
    }
    assert summary["categories"] == {"format 1, answer 1": 3, "format 1, answer 0": 1, "format 0, answer 0": 4}
    assert (summary["parse_failures"], summary["cut_off"], summary["no_room"]) == (4, 2, 1)
    assert summary["response_tokens"] == {"all": 58 / 8, "right": 4, "wrong": 46 / 5}
    assert {name: one["value"] for name, one in summary["by_group"]["level"].items()} == {"1": 0.75, "2": 0.0}
    assert category(BAD) == "format 0, answer 0"
