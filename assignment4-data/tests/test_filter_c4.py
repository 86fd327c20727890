"""C4's line and page rules, addresses, and the registry of filters."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.filters import DEFAULT_CHAIN, FILTERS, make_filter
from cs336_data.filters.c4_lines import C4LinesFilter
from cs336_data.filters.url import UrlFilter, host_of

PROSE = ("The first sentence has enough words.", "Is the second one a question?", "“The third is somebody's words.”")


def test_lines_that_are_no_sentences_go():
    text = "\n".join(
        ["Home | About", PROSE[0], "Only four words here.", "", PROSE[1], "It goes on and on...", PROSE[2]]
    )
    decision = C4LinesFilter()(Document(text))
    assert decision.keep
    assert decision.text == f"{PROSE[0]}\n\n{PROSE[1]}\n{PROSE[2]}"
    assert decision.metadata == {"c4_removed_lines": 3}


def test_text_of_sentences_is_left_alone():
    decision = C4LinesFilter()(Document("\n\n".join(PROSE)))
    assert decision.keep
    assert decision.text is None


def test_too_few_sentences():
    text = f"{PROSE[0]}\n{PROSE[1]}\nMenu"
    decision = C4LinesFilter()(Document(text))
    assert decision.reason == ("2 sentences, at least 3 are needed; removed lines: 1 without terminal punctuation")
    assert [text[span.start : span.end] for span in decision.spans] == ["Menu"]
    assert C4LinesFilter(min_sentences=2)(Document(text)).text == f"{PROSE[0]}\n{PROSE[1]}"
    assert C4LinesFilter()(Document(" ".join(PROSE))).keep  # three sentences on one line


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("Please enable JavaScript to see this page.", {"remove_javascript_lines": False}),
        ("Four words are here.", {"min_line_words": 4}),
        ("A line without an end to it", {"terminal_punctuation": False}),
        ("A line that trails off now ...", {"terminal_punctuation": False}),
    ],
)
def test_each_line_rule_is_an_option(line, options):
    text = "\n".join((*PROSE, line))
    assert C4LinesFilter()(Document(text)).text == "\n".join(PROSE)
    assert C4LinesFilter(**options)(Document(text)).text is None


@pytest.mark.parametrize(
    ("piece", "options", "reason"),
    [
        ("if (x) { y(); }", {"reject_curly_brackets": False}, "a curly bracket ('{', 1 times)"),
        ("Lorem Ipsum dolor.", {"reject_lorem_ipsum": False}, "lorem ipsum ('Lorem Ipsum', 1 times)"),
    ],
)
def test_each_page_rule_is_an_option(piece, options, reason):
    text = "\n".join((*PROSE, piece))
    decision = C4LinesFilter()(Document(text))
    assert decision.reason == reason
    assert text[decision.spans[0].start : decision.spans[0].end] in piece
    assert C4LinesFilter(**options)(Document(text)).keep


def test_bad_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("darn\nbad thing\n\n", encoding="utf-8")
    for words in (["bad thing", "darn"], path, str(path)):
        decide = pickle.loads(pickle.dumps(C4LinesFilter(bad_words=words)))
        decision = decide(Document(" ".join(PROSE) + " Darn! A bad thing."))
        assert decision.reason == "a bad word ('Darn', 2 times)"
        assert decide(Document(" ".join(PROSE) + " We darned a not so bad things.")).keep
    path.write_text("\n")
    with pytest.raises(UsageError, match=r"words\.txt"):
        C4LinesFilter(bad_words=path)


@given(
    st.lists(st.sampled_from([*PROSE, "Menu", "", "No end to this line here", "Too short.", "And so on…"]), max_size=9)
)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_what_is_kept_are_the_sentences(lines):
    kept = [line for line in lines if line in PROSE]
    decision = C4LinesFilter()(Document("\n".join(lines)))
    assert decision.keep == (len(kept) >= 3)
    if decision.keep:
        text = "\n".join(lines) if decision.text is None else decision.text
        assert [line for line in text.split("\n") if line] == kept
        again = C4LinesFilter()(Document(text))
        assert again.keep
        assert again.text is None


def test_addresses(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("# listed\nbad.example\n0.0.0.0 ads.example # a tracker\n\n", encoding="utf-8")
    decide = pickle.loads(pickle.dumps(UrlFilter(hosts=hosts, words=["casino"])))
    for url, reason in {
        "https://bad.example/": "host bad.example is listed as bad.example",
        "http://www.BAD.example.:80/x": "host www.bad.example is listed as bad.example",
        "https://ads.example/x": "host ads.example is listed as ads.example",
        "https://fine.example/Best-%43asino/": "the address holds 'casino'",
        "https://notbad.example/": "",
        "https://example/casinoroyale": "",
        "http://[bad": "",
        "": "",
    }.items():
        decision = decide(Document("", url))
        assert (decision.reason, decision.keep) == (reason, not reason)
    assert UrlFilter()(Document("", "https://bad.example")).keep
    assert host_of("//user@Host.Example:1/") == "host.example"


@given(st.text(alphabet=st.one_of(st.sampled_from('ab. \n"!{}…:/[]%'), st.characters()), max_size=150))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_any_text_is_decided(text):
    for decide in (
        C4LinesFilter(bad_words=["a b"]),
        C4LinesFilter(min_sentences=0),
        UrlFilter(hosts=["a"], words=["b"]),
    ):
        decision = decide(Document(text, text))
        assert decision.keep == (not decision.reason)
        assert all(0 <= span.start < span.end <= len(text) for span in decision.spans)


def test_registry_makes_every_filter_of_the_default_chain():
    for name in DEFAULT_CHAIN:
        decide = make_filter(name)
        assert decide.name == name
        assert pickle.loads(pickle.dumps(decide))(Document("")).keep in (True, False)
    assert set(DEFAULT_CHAIN) <= set(FILTERS)
    assert make_filter("gopher", min_words=2)(Document("three short words")).keep


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("gofer", {}, "'gofer'"),
        ("gopher", {"min_word": 3}, "'min_word'"),
        ("gopher", {"min_words": "many"}, "'many'"),
        ("c4_lines", {"min_line_words": -1}, "min_line_words -1"),
        ("c4_lines", {"min_sentences": -1}, "min_sentences -1"),
    ],
)
def test_registry_names_what_is_wrong(name, options, named):
    with pytest.raises(UsageError, match=named):
        make_filter(name, **options)
