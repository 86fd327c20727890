"""Gopher's repetition rules against brute force over tuples of words."""

import pickle
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.filters.repetition import RepetitionFilter
from cs336_data.repeated_ngrams import NgramRepetitions

WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=30)
LAX = {
    "max_copied_lines": 1.0,
    "max_copied_line_characters": 1.0,
    "max_copied_paragraphs": 1.0,
    "max_copied_paragraph_characters": 1.0,
    "top_ngrams": (),
    "copied_ngrams": (),
}


def ngrams_of(words, n):
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


@given(WORDS, st.integers(1, 12))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_copied_ngrams(words, n):
    expected, seen = [False] * len(words), set()
    for start, ngram in enumerate(ngrams_of(words, n)):
        if ngram in seen:
            expected[start : start + n] = [True] * n
        seen.add(ngram)
    assert NgramRepetitions(words).copied(n).tolist() == expected


@given(WORDS, st.integers(1, 12))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_most_frequent_ngram(words, n):
    counts = Counter(ngrams_of(words, n))
    expected = [False] * len(words)
    greatest = max(counts.values(), default=0)
    if greatest >= 2:
        # A dict keeps the order of first occurrence, and max takes the first of equals.
        chosen = max((ngram for ngram in counts if counts[ngram] == greatest), key=lambda ngram: len("".join(ngram)))
        for start, ngram in enumerate(ngrams_of(words, n)):
            if ngram == chosen:
                expected[start : start + n] = [True] * n
    assert NgramRepetitions(words).most_frequent(n).tolist() == expected


@given(WORDS)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_share_of_characters(words):
    repetitions = NgramRepetitions(words)
    covered = repetitions.copied(2)
    inside = sum(len(word) for word, inside in zip(words, covered, strict=True) if inside)
    assert repetitions.share_of_characters(covered) == (inside / len("".join(words)) if words else 0)


def test_copied_lines():
    lines = [f"line {letter * 4}" for letter in "abcdefg"]
    text = "\n".join(lines + lines[:3])  # 3 of 10 are copies
    assert RepetitionFilter(**LAX | {"max_copied_lines": 0.3})(Document(text)).keep
    decision = RepetitionFilter(**LAX | {"max_copied_lines": 0.29})(Document(text))
    assert decision.reason == "30.0% of lines are copies, at most 29% are allowed"
    assert [text[span.start : span.end] for span in decision.spans] == lines[:3]
    assert decision.spans[0].start == len("\n".join(lines)) + 1


def test_characters_in_copied_lines():
    text = "x" * 30 + "\n" + "y" * 10 + "\n\n" + "  " + "y" * 10
    assert RepetitionFilter(**LAX | {"max_copied_line_characters": 0.2})(Document(text)).keep
    decision = RepetitionFilter(**LAX | {"max_copied_line_characters": 0.19})(Document(text))
    assert decision.reason == "20.0% of characters in lines are copies, at most 19% are allowed"


def test_copied_paragraphs():
    paragraphs = ["one\ntwo", "three\nfour", "one\ntwo", "two\none"]
    text = "\n\n \n".join(paragraphs)
    assert RepetitionFilter(**LAX | {"max_copied_paragraphs": 0.25})(Document(text)).keep
    decision = RepetitionFilter(**LAX | {"max_copied_paragraphs": 0.2})(Document(text))
    assert decision.reason == "25.0% of paragraphs are copies, at most 20% are allowed"
    assert [text[span.start : span.end] for span in decision.spans] == ["one\ntwo"]
    limit = {"max_copied_paragraph_characters": 7 / len("".join(paragraphs)) - 1e-9}
    assert not RepetitionFilter(**LAX | limit)(Document(text)).keep


def test_ngrams_name_their_words():
    text = "Buy now! Buy now! Buy now! Then something else entirely follows."
    decision = RepetitionFilter(**LAX | {"top_ngrams": ((2, 0.3),)})(Document(text))
    assert decision.reason == "36.0% of characters in the most frequent 2-gram, at most 30% are allowed"
    assert {text[span.start : span.end] for span in decision.spans} == {"Buy", "now"}
    assert len(decision.spans) == 6
    copied = "one two three four five six. " * 2 + "and an end of it"
    decision = RepetitionFilter(**LAX | {"copied_ngrams": ((5, 0.1),)})(Document(copied))
    assert decision.reason.startswith("39.3% of characters in copied 5-grams")
    assert decision.spans[0].start == copied.index("one", 5)


def test_default_limits():
    prose = " ".join(f"Sentence number {number} says something of its own about {number * 7}." for number in range(30))
    keywords = "cheap watches " * 40
    decide = pickle.loads(pickle.dumps(RepetitionFilter()))
    assert decide(Document(f"{keywords}\n{prose}")).reason.endswith("most frequent 2-gram, at most 20% are allowed")
    distinct = " ".join(f"w{number}" for number in range(300))
    assert decide(Document(distinct)).keep
    assert decide(Document("")).keep


@given(st.text(alphabet=st.one_of(st.sampled_from("ab \n"), st.characters()), max_size=120), st.integers(1, 5))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_any_text_is_decided(text, times):
    document = Document(text * times)
    decision = RepetitionFilter()(document)
    assert decision.keep == (not decision.reason)
    assert all(0 <= span.start < span.end <= len(document.text) for span in decision.spans)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_copied_lines": 2}, "max_copied_lines 2"),
        ({"top_ngrams": ((0, 0.1),)}, "top_ngrams of 0 words"),
        ({"copied_ngrams": ((5, -0.1),)}, r"copied_ngrams\[5\] -0.1"),
    ],
)
def test_bad_options(options, named):
    with pytest.raises(UsageError, match=named):
        RepetitionFilter(**options)
