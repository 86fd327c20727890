"""Gopher's quality rules: each limit from both sides, and word counts against brute force."""

import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.filters.gopher import GopherFilter, passes_gopher
from cs336_data.words import lines_of, lone_symbols, paragraphs_of, words_of

from .adapters import run_gopher_quality_filter

SENTENCE = "This is an ordinary sentence that has words of all lengths and ends with a full stop."


def reason(text, **options):
    return GopherFilter(**options)(Document(text)).reason


def test_ordinary_text_passes():
    assert run_gopher_quality_filter(" ".join([SENTENCE] * 10)) is True


def test_sentences_that_touch_pass():
    assert run_gopher_quality_filter(SENTENCE * 10) is True
    assert words_of("the end.The next") == ["the", "end", "The", "next"]


@pytest.mark.parametrize(("count", "passes"), [(0, False), (49, False), (50, True), (100_000, True), (100_001, False)])
def test_number_of_words(count, passes):
    text = " ".join(["word"] * count)
    assert run_gopher_quality_filter(text) is passes
    # Punctuation and symbols are no words.
    assert run_gopher_quality_filter(text.replace("word", "word,", 5)) is passes


def test_mean_word_length():
    assert run_gopher_quality_filter("the " * 60)
    assert not run_gopher_quality_filter("the " * 60 + "be")
    assert run_gopher_quality_filter("abcdefghij " * 60)
    assert not run_gopher_quality_filter("abcdefghij " * 60 + "abcdefghijk")


@pytest.mark.parametrize("ellipsis", ["...", "…", "... ", ".…"])
def test_lines_that_end_in_an_ellipsis(ellipsis):
    lines = [SENTENCE.removesuffix(".") + ellipsis] * 3 + [SENTENCE] * 7
    assert run_gopher_quality_filter("\n".join(lines))
    assert run_gopher_quality_filter("\n\n".join(lines))
    assert not run_gopher_quality_filter("\n".join(lines[:-1]))
    assert not run_gopher_quality_filter("\n\n".join(lines[:-1]))  # blank lines are no lines


@pytest.mark.parametrize("odd", ["1234", "###", "3.14", "-->", "12:30"])
def test_words_with_a_letter(odd):
    assert run_gopher_quality_filter(" ".join(["word"] * 80 + [odd] * 20))
    assert not run_gopher_quality_filter(" ".join(["word"] * 80 + [odd] * 21))


def test_punctuation_at_words_is_no_word_without_letter():
    assert passes_gopher("“word”, (word)! " * 60)


def test_the_four_rules_are_the_default():
    for text in ("# " * 10 + "words here " * 60, "\n".join(["- words in a list here"] * 20), "lorem ipsum " * 60):
        assert passes_gopher(text)
        assert reason(text, rules="paper")
    assert not reason(" ".join([SENTENCE] * 10), rules="paper")


def test_rules_of_the_paper():
    text = f"the and {'word ' * 98}"  # 100 words
    assert not reason(text + "#" * 10, rules="paper", min_alphabetic_words=0)
    assert "0.11 hash signs" in reason(text + "#" * 11, rules="paper", min_alphabetic_words=0)
    assert "0.12 ellipses" in reason(text + "... " * 6 + "… " * 6 + "end", rules="paper")
    bullets = [f"{bullet} the words and so on" for bullet in "•-*●‣▪◦–·"] * 2
    assert not reason("\n".join([*bullets, "the plain line", "and others"]), rules="paper")
    assert "94.7% of lines begin" in reason("\n".join([*bullets, "the plain line"]), rules="paper")
    assert not reason("Of " + "the " * 60, rules="paper", min_mean_word_length=0)
    assert reason("The " + "the " * 60, rules="paper").startswith("1 of the stop words")


def test_reasons_name_figures_and_places():
    decision = GopherFilter()(Document("few words"))
    assert decision.reason == "2 words, at least 50 are needed"
    text = "word " * 60 + "1234 " * 20
    decision = GopherFilter()(Document(text))
    assert decision.reason == "75.0% of words with a letter, at least 80% are needed"
    assert {text[span.start : span.end] for span in decision.spans} == {"1234"}
    assert len(decision.spans) == 20
    text = "\n".join([SENTENCE, "And so on …"] * 5)
    decision = GopherFilter()(Document(text))
    assert {text[span.start : span.end] for span in decision.spans} == {"And so on …"}
    text = "the # of " * 60
    decision = GopherFilter(rules="paper", min_mean_word_length=0, min_alphabetic_words=0)(Document(text))
    assert {text[span.start : span.end] for span in decision.spans} == {"#"}


@given(st.text("ab .,!\n…#é", max_size=60))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_words_and_symbols_against_brute_force(text):
    runs, run = [], ""
    for character in text + " ":
        if character.isalpha():
            run += character
        elif run:
            runs.append(run)
            run = ""
    assert words_of(text) == runs
    alone = [piece for piece in re.split(r"\s+", text) if piece and not re.search("[abé]", piece)]
    assert lone_symbols(text) == alone


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't well-known rock’n’roll", ["don't", "well-known", "rock’n’roll"]),
        ("1,234.5 at 12:30, 3/4", ["1,234.5", "at", "12:30", "3/4"]),
        ("snake_case 'quoted' -dash- a--b", ["snake", "case", "quoted", "dash", "a", "b"]),
        ("cafe\u0301s nai\u0308ve", ["cafe\u0301s", "nai\u0308ve"]),
        ("e\u0301", ["e\u0301"]),
        ("第一章 the", ["第一章", "the"]),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


@given(st.text(alphabet=st.one_of(st.sampled_from("ab .\n\r\u2028\t"), st.characters()), max_size=60))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_lines_and_paragraphs_have_their_places(text):
    assert [line.text for line in lines_of(text)] == [line.strip() for line in text.splitlines() if line.strip()]
    for piece in lines_of(text) + paragraphs_of(text):
        assert text[piece.start : piece.end] == piece.text
    expected, paragraph = [], []
    for line in [*text.splitlines(keepends=True), ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            expected.append("".join(paragraph).strip())
            paragraph = []
    assert [paragraph.text for paragraph in paragraphs_of(text)] == expected


@given(st.text(alphabet=st.characters(), max_size=200), st.integers(1, 30))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_any_text_is_decided(text, times):
    document = Document(text * times)
    decision = pickle.loads(pickle.dumps(GopherFilter(rules="paper")))(document)
    assert decision.keep == (not decision.reason)
    assert all(0 <= span.start < span.end <= len(document.text) for span in decision.spans)
    if decision.keep:
        assert passes_gopher(document.text)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rules": "all"}, "'all'"),
        ({"min_words": 9, "max_words": 5}, "min_words 9"),
        ({"min_mean_word_length": -1}, "min_mean_word_length -1"),
        ({"max_ellipsis_lines": 1.2}, "max_ellipsis_lines 1.2"),
        ({"max_symbols_per_word": -0.1}, "max_symbols_per_word -0.1"),
        ({"min_stop_words": 9}, "min_stop_words 9"),
    ],
)
def test_bad_options(options, named):
    with pytest.raises(UsageError, match=named):
        GopherFilter(**options)
