"""The quality classifier: its statistics, its logistic regression, its default model, and the filter over them."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.fasttext_model import train_classifier
from cs336_data.filters.quality import QualityFilter, classify_quality
from cs336_data.logistic_regression import fit_logistic
from cs336_data.quality_model import load_model, packaged_model
from cs336_data.quality_statistics import NAMES, quality_statistics
from cs336_data.training_sets import is_held_out, small_web_examples
from cs336_data.training_texts import read_texts

from .adapters import run_classify_quality

ENTRY = """An Encyclopedia of Ideas
Browse
About
Contact
Entry contents
Bibliography
Scepticism in antiquity
First published in 1997; revised in 2010
Scepticism is the view that knowledge is lacking in some domain, and that judgment about it ought therefore to be
suspended. The sceptics of antiquity, among whom Pyrrho of Elis and Sextus Empiricus are the best known, held that for
every argument there is an opposed argument of equal weight. This entry distinguishes two traditions, the Academic and
the Pyrrhonian, and asks what each of them took its conclusion to be.
1. Varieties
There were various forms of scepticism. The Academic sceptics were said to have asserted that nothing can be known,
whereas the Pyrrhonists withheld assent even from that claim (Burnyeat 1980). It was objected, already by Hume, that
belief is not under the control of the will. Others have replied that the sceptic lived by appearances: he ate, drank
and obeyed the laws, but without holding that any of these was good by nature.
According to some scholars, both schools shared a method derived from Socrates, which consisted in drawing contradictory
conclusions from premises that the opponent himself had granted (Frede 1997).
Bibliography
Annas, J. and Barnes, J., 1985, The Modes of Scepticism, Cambridge: Cambridge University Press.
Burnyeat, M., 1980, "Can the Sceptic Live His Scepticism?", in Doubt and Dogmatism, pp. 20-53.
Copyright 2010 by the author
"""
FORUM = """Board index
FAQ
Register
Login
Re: Best tires for winter?
Quote from: snowman
lol yeah i had the same problem, got mine at the store and they were fine!! anyone else tried the new ones?
i dont know man, my buddy swears by them but i wouldnt spend that much, would you? :)
By registering you agree to our terms. If you do not agree with them, please do not use this board. You agree not to
post any material that we may find abusive. We may remove your posts at any time.
I agree to these terms
Users browsing this forum: 3 guests
All times are UTC
Powered by forum software
"""
SHOP = """Sign in | Register | Cart (0) | Wishlist
Leather Boots $59.99 Add to cart
Running Shoes $39.99 In stock
Sandals $19.99 Out of stock
Free shipping on all orders over $50!
Subscribe to our newsletter and get 10% off your first order
Customer service Contact us Shipping Returns Privacy Policy
"""


@pytest.fixture(autouse=True)
def _no_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_adapter_tells_reference_from_crawl():
    for text, expected in (
        (ENTRY, "wiki"),
        (ENTRY * 5, "wiki"),
        (FORUM, "cc"),
        (SHOP, "cc"),
        ("", "cc"),
        ("Menu", "cc"),
    ):
        label, score = run_classify_quality(text)
        assert label == expected
        assert type(score) is float
        assert 0.5 <= score <= 1


def test_statistics_by_hand():
    text = "The cat was seen in 1999, they say. You sat!\nLog in\nLog in\n"
    found = dict(zip(NAMES, quality_statistics(text), strict=True))
    assert found["words_log10"] == pytest.approx(np.log10(14))
    assert found["function_words"] == pytest.approx(5 / 14)  # the, was, in, and the "in" of each "log in"
    assert found["addressing_words"] == pytest.approx(1 / 14)
    assert found["years"] == pytest.approx(1 / 14)
    assert found["commas"] == pytest.approx(1 / 14)
    assert found["exclamations_and_questions"] == pytest.approx(1 / 14)
    assert found["site_phrases"] == pytest.approx(2 / 14)
    assert found["repeated_lines"] == pytest.approx(1 / 3)
    assert found["prose_lines"] == pytest.approx(44 / 56)
    assert found["short_lines"] == pytest.approx(12 / 56)
    assert found["words_per_sentence_log2"] == pytest.approx(np.log2(14 / 2))


def test_logistic_regression_has_no_gradient_left_and_finds_the_truth():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(4000, 3)) * [1.0, 2.0, 0.5] + [0.0, 5.0, -1.0]
    true_weights = np.array([1.5, -1.0, 0.0])
    standardized = (features - features.mean(0)) / features.std(0)
    labels = (generator.random(4000) < 1 / (1 + np.exp(-standardized @ true_weights))).astype(float)
    model = fit_logistic(features, labels, penalty=2.0)
    assert model.weights == pytest.approx(true_weights, abs=0.15)
    # The optimality conditions, written out again.
    share = labels.mean()
    importance = np.where(labels == 1, 0.5 / share, 0.5 / (1 - share))
    error = importance * (model.probability(features) - labels)
    assert np.abs(model.standardized(features).T @ error + 2.0 * model.weights).max() < 1e-6
    assert abs(error.sum()) < 1e-6


def test_logistic_regression_survives_separable_and_constant_features():
    features = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    model = fit_logistic(features, np.array([0.0, 0.0, 1.0, 1.0]))
    assert (model.probability(features) > 0.5).tolist() == [False, False, True, True]
    with pytest.raises(UsageError, match="0 of 4"):
        fit_logistic(features, np.zeros(4))
    with pytest.raises(UsageError, match="-1"):
        fit_logistic(features, np.array([0.0, 0.0, 1.0, 1.0]), penalty=-1)


def test_packaged_model_says_where_it_comes_from():
    with open(packaged_model(), encoding="utf-8") as file:
        record = json.load(file)
    assert record["provenance"]["reference"]
    assert record["provenance"]["crawl"]
    weights = {name: row["weight"] for name, row in record["statistics"].items()}
    # What speaks for reference works and what against must not be turned around by odd data.
    assert all(weights[name] > 0 for name in ("function_words", "scholarly_words", "past_tense", "citations"))
    assert all(weights[name] < 0 for name in ("addressing_words", "site_phrases", "addresses_and_prices"))


def test_filter_rejects_with_the_statistics_to_blame():
    decide = pickle.loads(pickle.dumps(QualityFilter()))
    assert decide(Document(ENTRY)).keep
    decision = decide(Document(FORUM))
    assert not decision.keep
    assert "site phrases" in decision.reason
    assert decision.metadata["quality_score"] < 0.1
    assert QualityFilter(min_score=0)(Document(FORUM)).keep


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.one_of(st.text(max_size=200), st.text(alphabet="aThe .,!?\n1$[]()\u2028\x0b", max_size=200)))
def test_never_raises(text):
    assert np.isfinite(quality_statistics(text)).all()
    label, score = classify_quality(text)
    decision = QualityFilter(min_score=0.5)(Document(text))
    assert decision.keep == (label == "wiki")
    assert 0 < score <= 1


def test_a_trained_fasttext_model_takes_its_place(tmp_path):
    path = tmp_path / "data/models/quality.bin"
    examples = [(label, f"{word} {i % 5}") for label, word in (("wiki", "zork"), ("cc", "blip")) for i in range(40)]
    train_classifier(examples, path, buckets=1000, dimension=8)
    assert classify_quality("zork\nzork")[0] == "wiki"
    assert classify_quality(ENTRY + "blip blip")[0] in ("wiki", "cc")
    assert not QualityFilter(min_score=0.5)(Document("blip")).keep
    assert classify_quality(FORUM, model=packaged_model())[0] == "cc"


def test_bad_models(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text('{"bias": 1, "statistics": {}}')
    with pytest.raises(UsageError, match=r"broken\.json"):
        QualityFilter(model=broken)
    with pytest.raises(UsageError, match="no file"):
        load_model("missing.json")
    with pytest.raises(UsageError, match=r"-0\.1"):
        QualityFilter(min_score=-0.1)


def test_on_the_small_web():
    """Pages of the small web that are no prose are never taken for reference; its articles mostly pass the filter."""
    decide = QualityFilter()
    kept = {True: [], False: []}
    for is_article, text in small_web_examples("article", 60, seed=5):
        kept[is_article].append(decide(Document(text)).keep)
    assert np.mean(kept[True]) > 0.8
    assert np.mean(kept[False]) < 0.2


def test_on_held_out_articles_and_crawl(shared_data):
    """The halves of WikiText-2 and of C4 that the packaged model was not fitted on."""
    articles = [text for text in read_texts(shared_data / "text/wikitext2_test.txt") if is_held_out(text, 0.5)]
    crawl = [text for text in read_texts(shared_data / "web/c4_sample.jsonl") if is_held_out(text, 0.5)]
    assert np.mean([classify_quality(text)[0] == "wiki" for text in articles]) > 0.9
    assert np.mean([classify_quality(text)[0] == "wiki" for text in crawl]) < 0.25
