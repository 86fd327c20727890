"""Modified Kneser-Ney against a slow version written from its equations, and the perplexity filter."""

import itertools
import math
import pickle
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.filters.perplexity import PerplexityFilter
from cs336_data.kneser_ney import FALLBACK_DISCOUNTS, discounts, log_probabilities
from cs336_data.ngram_model import load_ngram_model, sentences, train_ngram_model

TEXT = """the cat sat on the mat
the dog sat on the log
a cat and a dog sat
the cat saw the dog on the mat
a dog saw a cat
the mat the log the cat"""


class SlowKneserNey:
    """The estimate with dictionaries of tuples, recursively."""

    def __init__(self, text, vocabulary, order):
        lines = [("<s>", *(w if w in vocabulary else "<unk>" for w in words), "</s>") for words in sentences(text)]
        raw = [
            Counter(line[i : i + n] for line in lines for i in range(len(line) - n + 1)) for n in range(1, order + 2)
        ]
        self.counts = []
        for n in range(1, order + 1):
            counts = Counter(raw[n - 1])
            if n < order:
                before = defaultdict(set)
                for ngram in raw[n]:
                    before[ngram[1:]].add(ngram[0])
                for ngram in counts:
                    if ngram[0] != "<s>":
                        counts[ngram] = len(before[ngram])
            if n == 1:
                del counts["<s>",]
            self.counts.append(counts)
        self.discounts = []
        for counts in self.counts:
            n1, n2, n3, n4 = (sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))
            d = FALLBACK_DISCOUNTS
            if n1 and n2 and n3 and n4:
                y = n1 / (n1 + 2 * n2)
                estimated = tuple(k - (k + 1) * y * b / a for k, a, b in ((1, n1, n2), (2, n2, n3), (3, n3, n4)))
                if all(0 < x <= k for k, x in enumerate(estimated, 1)):
                    d = estimated
            self.discounts.append((0.0, *d))
        self.predicted = len(vocabulary) - 1

    def p(self, context, word):
        n = len(context) + 1
        lower = 1 / self.predicted if n == 1 else self.p(context[1:], word)
        counts, d = self.counts[n - 1], self.discounts[n - 1]
        following = {ngram[-1]: c for ngram, c in counts.items() if ngram[:-1] == context}
        if not following:
            return lower
        total = sum(following.values())
        gamma = sum(d[min(c, 3)] for c in following.values()) / total
        c = following.get(word, 0)
        return (c - d[min(c, 3)]) / total + gamma * lower


def probability_of(model, words):
    """p of the last of the words, after the others."""
    index = {word: i for i, word in enumerate(model.vocabulary)}
    encoded = np.array([index[word] for word in words])
    return 10 ** log_probabilities(encoded, model.orders, len(model.vocabulary))[-1]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("max_vocabulary", [100, 7])
def test_equals_the_slow_version_and_sums_to_one(order, max_vocabulary):
    model = train_ngram_model([TEXT], order=order, max_vocabulary=max_vocabulary)
    slow = SlowKneserNey(TEXT, model.vocabulary, order)
    inner = [word for word in model.vocabulary if word not in ("<s>", "</s>")]
    contexts = [("<s>", *words) for n in range(3) for words in itertools.product(inner[:5], repeat=n)]
    for context in contexts:
        total = 0.0
        for word in model.vocabulary:
            if word == "<s>":
                continue
            expected = slow.p(context[max(len(context) - order + 1, 0) :], word)
            found = probability_of(model, (*context, word))
            assert found == pytest.approx(expected, rel=1e-5)
            total += found
        assert total == pytest.approx(1.0, abs=1e-5)


def test_bigrams_by_hand():
    """ "a b" and "a c": too few n-grams for estimated discounts, so 0.5 for all counts of 1, 1.0 for counts of 2."""
    model = train_ngram_model(["a b\na c"], order=2)
    assert set(model.vocabulary) == {"<unk>", "<s>", "</s>", "a", "b", "c"}
    # Single words count their predecessors: a 1 (<s>), b 1, c 1, </s> 2 (b, c); 5 in all; gamma = (3 * 0.5 + 1.0) / 5.
    p_b = 0.5 / 5 + 0.5 / 5
    assert probability_of(model, ["<s>", "b"]) == pytest.approx((1.0 / 2) * p_b)  # <s> is followed by a alone, twice
    assert probability_of(model, ["<s>", "a"]) == pytest.approx((2 - 1.0) / 2 + (1.0 / 2) * p_b)
    # a is followed by b and c, once each: gamma = (0.5 + 0.5) / 2.
    assert probability_of(model, ["<s>", "a", "b"]) == pytest.approx((1 - 0.5) / 2 + 0.5 * p_b)


def test_discounts_follow_chen_and_goodman():
    counts = np.repeat([1, 2, 3, 4, 9], [10, 6, 4, 3, 2])
    y = 10 / 22
    assert discounts(counts) == pytest.approx((1 - 2 * y * 0.6, 2 - 3 * y * 4 / 6, 3 - 4 * y * 3 / 4))
    assert discounts(np.array([1, 1, 2])) == FALLBACK_DISCOUNTS


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(1, 4),
    st.lists(st.sampled_from("abcde"), max_size=4),
)
def test_any_text_gives_a_distribution(lines, order, context):
    model = train_ngram_model(["\n".join(map(" ".join, lines))], order=order)
    known = ["<s>", *(word if word in model.vocabulary else "<unk>" for word in context)]
    total = sum(probability_of(model, [*known, word]) for word in model.vocabulary if word != "<s>")
    assert total == pytest.approx(1.0, abs=1e-5)


def test_perplexity_is_the_geometric_mean():
    model = train_ngram_model([TEXT], order=3)
    text = "The cat sat\n\nzebra dog"
    logs = []
    for line in (["the", "cat", "sat", "</s>"], ["<unk>", "dog", "</s>"]):
        logs += [math.log(probability_of(model, ["<s>", *line[: i + 1]])) for i in range(len(line))]
    assert model.perplexity(text) == pytest.approx(math.exp(-sum(logs) / 7), rel=1e-5)
    assert model.perplexity("...\n") == math.inf
    assert model.perplexity("the cat sat on the mat") < model.perplexity("mat the on sat cat the")


def test_buckets_filter_and_file(tmp_path, monkeypatch):
    model = train_ngram_model([TEXT], order=3)
    crawl = ["the cat sat on the mat", "a dog on a mat and a log", "xyzzy plugh qwerty"]
    model = model.with_buckets(crawl)
    assert [model.bucket(model.perplexity(text)) for text in crawl] == ["head", "middle", "tail"]
    path = tmp_path / "data/models/perplexity.npz"
    model.save(path)
    loaded = load_ngram_model(str(path))
    assert loaded.vocabulary == model.vocabulary
    assert [loaded.perplexity(text) for text in crawl] == [model.perplexity(text) for text in crawl]
    monkeypatch.chdir(tmp_path)
    decide = pickle.loads(pickle.dumps(PerplexityFilter()))
    assert [decide(Document(text)).keep for text in crawl] == [True, True, False]
    assert "tail" in decide(Document(crawl[2])).reason
    assert not PerplexityFilter(buckets="head")(Document(crawl[1])).keep
    nothing = decide(Document(""))
    assert not nothing.keep
    assert nothing.metadata["perplexity"] is None


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.text(max_size=100))
def test_never_raises(text):
    model = train_ngram_model([TEXT], order=3)
    assert model.perplexity(text) > 0


def test_bad_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"train_classifier\.py"):
        PerplexityFilter()
    with pytest.raises(UsageError, match="torso"):
        PerplexityFilter(buckets=["torso"])
    with pytest.raises(UsageError, match="order 9"):
        train_ngram_model([TEXT], order=9)
    with pytest.raises(UsageError, match="no word"):
        train_ngram_model(["...", ""])
    with pytest.raises(UsageError, match="3 words"):
        train_ngram_model([TEXT], max_vocabulary=3)
    (tmp_path / "bad.npz").write_bytes(b"bad")
    with pytest.raises(UsageError, match="no n-gram model"):
        PerplexityFilter(model="bad.npz")
    with pytest.raises(UsageError, match="no text with words"):
        train_ngram_model([TEXT]).with_buckets(["", "..."])


def test_real_text_is_told_from_shuffled(shared_data):
    """Trained on a novel's first part: its next part is less surprising in order than out of order."""
    text = (shared_data / "text/novels/Doyle_Hound_1902.txt").read_text(encoding="utf-8-sig")
    model = train_ngram_model([text[:200_000]], order=4)
    part = text[220_000:230_000]
    words = part.split()
    shuffled = " ".join(np.random.default_rng(0).permutation(words))
    assert model.perplexity(part) < 0.8 * model.perplexity(shuffled)
