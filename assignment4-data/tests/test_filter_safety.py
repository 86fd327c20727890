"""NSFW and toxic speech: the lexicon against masked spellings and innocent words, and the filters over it."""

import csv
import html
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.fasttext_model import train_classifier
from cs336_data.filter_evaluation import Settings, evaluate
from cs336_data.filters.nsfw import NsfwFilter, classify_nsfw
from cs336_data.filters.toxic import ToxicSpeechFilter, classify_toxic_speech
from cs336_data.lexicon import TOXIC_CATEGORIES, count_words, find_terms, unsafe_probability
from cs336_data.lexicon.spelling import plain
from cs336_data.lexicon.terms import lexicon

from .adapters import run_classify_nsfw, run_classify_toxic_speech

POLITE = [
    "Why did you revert my edit? The source is reliable, and I explained the change on the talk page.",
    "A wiki is a website that its readers edit together; each change is kept in the page's history.",
    "The clinic offers breast cancer screening, vaccination and sex education for the whole county.",
    "",
]
INSULTING = [
    "You are a fucking idiot. Stop reverting my edits, you piece of shit.",
    "nobody likes you, you pathetic moron, get a life",
    "go kill yourself",
]
EXPLICIT = ["I want to suck your cock and cum on your tits", "watch hot naked girls on our live sex cams, free porn"]


def spelled(text):
    return [match.term.text for match in find_terms(text)]


@pytest.fixture(autouse=True)
def _no_models(tmp_path, monkeypatch):
    """What the data folder of this checkout holds must not decide."""
    monkeypatch.chdir(tmp_path)


def test_adapters():
    for text in POLITE:
        for label, score in (run_classify_nsfw(text), run_classify_toxic_speech(text)):
            assert label in ("non-nsfw", "non-toxic")
            assert type(score) is float
            assert 0 < score <= 1
    for text in INSULTING:
        label, score = run_classify_toxic_speech(text)
        assert label == "toxic"
        assert type(score) is float
        assert 0.5 <= score <= 1
    for text in EXPLICIT:
        assert run_classify_nsfw(text)[0] == "nsfw"


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("f*ck", "fuck"), ("f@ck", "fuck"), ("f**k", "fuck"), ("f***", "fuck"), ("f-ck", "fuck"), ("FUCK!!!", "fuck"),
        ("sh1t", "shit"), ("SH!T", "shit"), ("$hit", "shit"), ("a$$hole", "asshole"), ("b1tch", "bitch"),
        ("@$$hole", "asshole"), ("fuuuuck", "fuck"), ("shiiiittt", "shit"), ("f u c k", "fuck"), ("f.u.c.k", "fuck"),
        ("f_u_c_k", "fuck"), ("s h i t", "shit"), ("fu\u200bck", "fuck"), ("fu\u00adck", "fuck"), ("fùçk", "fuck"),
        ("\uff46\uff55\uff43\uff4b", "fuck"), ("fu\u0441k", "fuck"), ("#bitch", "bitch"), ("f*cking", "fucking"),
        ("unfuckingbelievable", "fuck"),
        ("w*nkers", "wankers"), ("son of a b*tch", "bitch"), ("go, kill yourself", "kill yourself"), ("*shit*", "shit"),
    ],
)  # fmt: skip
def test_masked_spellings_are_found_where_they_stand(text, term):
    surrounded = f"Well, {text} they said."
    (match, *_) = find_terms(surrounded)
    assert match.term.text == term
    assert term == "bitch" or surrounded[match.start : match.end] in text


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe, Penistone, Essex and Cockermouth", "the assassin passed the class in a grassy mass", "cumin",
        "a therapist's analysis", "Dick Whittington and Moby Dick", "the cockpit and the peacock", "shiitake titmouse",
        "a graduate, magna cum laude", "note* **bold** and 2*3*4", "t-shirt, co-op, e-mail, x-ray", "as if",
        "room 455, A55 road", "A B C D E", "Arsenal scored", "a pussy cat and a guinea pig", "Matsushita of Fukuoka",
        "+++---***", "f* g* **",
    ],
)  # fmt: skip
def test_innocent_words_are_not(text):
    assert spelled(text) == []


def test_every_term_of_one_word_is_found_as_written_and_shouted():
    for term in lexicon().words.values():
        for text in (term.text, term.text.upper()):
            assert spelled(text) == [term.text] or term.category == "innocent"


def test_insults_count_more_next_to_you():
    assert classify_toxic_speech("you idiot")[0] == "toxic"
    assert classify_toxic_speech("The idiot is a novel by a Russian writer")[0] == "non-toxic"


def test_score_falls_with_length_and_rises_with_terms():
    def score(text):
        return unsafe_probability(find_terms(text), count_words(text), TOXIC_CATEGORIES)

    filler = "the committee met again on Monday to look at the plans " * 50
    assert score("shit") > score("shit " + filler[:600]) > score("shit " + filler) > score(filler) == score("")
    assert score("shit shit " + filler) > score("shit " + filler)
    assert 0 < score("") < 0.2
    assert 0.99 < score("shit " * 1000) < 1


@pytest.mark.parametrize(("make", "unsafe"), [(NsfwFilter, EXPLICIT[0]), (ToxicSpeechFilter, INSULTING[0])])
def test_filters_reject_with_reason_score_and_spans(make, unsafe):
    decide = pickle.loads(pickle.dumps(make()))
    decision = decide(Document(unsafe))
    assert not decision.keep
    assert "lexicon" in decision.reason
    (score,) = decision.metadata.values()
    assert f"{score:.2f}" in decision.reason
    assert decision.spans
    assert all(0 <= span.start < span.end <= len(unsafe) for span in decision.spans)
    kept = decide(Document(POLITE[0]))
    assert kept.keep
    assert kept.reason == ""
    assert not kept.spans


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("fuckshit*@$1! .-\u200b\u0441'")), max_size=60))
def test_never_raises_and_spans_lie_inside(text):
    for match in find_terms(text):
        assert 0 <= match.start < match.end <= len(text)
    for decide, classify in ((NsfwFilter(), classify_nsfw), (ToxicSpeechFilter(), classify_toxic_speech)):
        decision = decide(Document(text))
        (score,) = decision.metadata.values()
        label, probability = classify(text)
        assert decision.keep == (score <= 0.5)
        assert label.startswith("non-") == (score < 0.5)
        assert probability == pytest.approx(max(score, 1 - score))


def test_plain_leaves_words_of_other_scripts():
    assert plain("Сорок") == "сорок"
    assert plain("ÉCOLE") == "ecole"


def test_a_trained_model_takes_the_place_of_the_lexicon(tmp_path):
    path = tmp_path / "data" / "models" / "toxic.bin"
    examples = [("toxic", f"zork blip {i % 7}") for i in range(50)] + [
        ("non-toxic", f"kind words {i % 7}") for i in range(50)
    ]
    train_classifier(examples, path, buckets=1000, dimension=8)
    assert classify_toxic_speech("blip zork")[0] == "toxic"
    label, score = classify_toxic_speech("kind\nwords " + INSULTING[0])
    assert label == "non-toxic"
    assert 0.5 < score <= 1
    decision = ToxicSpeechFilter()(Document("zork\nblip"))
    assert "toxic.bin" in decision.reason
    # Text that no word of is known, and characters that cannot be encoded.
    for text in ("", "\n", "\ud800", "\0"):
        assert ToxicSpeechFilter()(Document(text)).keep in (True, False)
    with pytest.raises(UsageError, match="nsfw"):
        classify_nsfw("text", model=path)


def test_bad_arguments(tmp_path):
    with pytest.raises(UsageError, match=r"1\.5"):
        NsfwFilter(max_score=1.5)
    with pytest.raises(UsageError, match="missing"):
        ToxicSpeechFilter(model=tmp_path / "missing.bin")
    other = tmp_path / "other.bin"
    other.write_bytes(b"not a model")
    with pytest.raises(UsageError, match="no fastText model"):
        classify_toxic_speech("text", model=other)


def test_lexicon_on_labeled_tweets(shared_data):
    with open(shared_data / "toxicity" / "davidson_labeled_data.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::5]
    truth = [row["class"] != "2" for row in rows]  # 0 hate speech, 1 offensive language, 2 neither
    found = [classify_toxic_speech(html.unescape(row["tweet"]))[0] == "toxic" for row in rows]
    hits = sum(a and b for a, b in zip(truth, found, strict=True))
    assert hits / sum(found) > 0.95
    assert hits / sum(truth) > 0.85


def test_measured_on_the_small_web():
    """Its pages of these kinds, written with masked spellings, are all found; hardly an article is."""
    measurements, left_out = evaluate(["safety"], Settings(num_pages=150))
    assert not left_out
    assert [measurement.filter for measurement in measurements] == ["nsfw (lexicon)", "toxic (lexicon)"]
    for measurement in measurements:
        assert measurement.true_positives > 0
        assert measurement.recall >= 0.8
        assert measurement.false_positives <= 2
