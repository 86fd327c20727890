"""Deduplication as a stage of the pipeline, against brute force; and runs that end at any moment."""

import itertools
import os
from pathlib import Path

import pytest

from cs336_basics.command_line import UsageError
from cs336_data.pipeline.chain import FilterSpec
from cs336_data.pipeline.dedup_settings import METHODS, DedupSettings
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.filtering import FilterSettings
from cs336_data.pipeline.inputs import find_units
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.report import RunReport
from cs336_data.pipeline.run import Run

from .pipeline_runs import InProcess, article, json_lines, records, shards

FILTERS = FilterSettings((FilterSpec("gopher"),), keep_rejected=True)
BOILERPLATE = "Subscribe to our letter"
OTHER_ADDRESS_OF_3 = "http://www.x.org/3/?utm_source=mail#top"


def execute(folder: Path, out: Path, settings: DedupSettings) -> RunReport:
    run = Run(find_units([folder]), Layout(out), FILTERS, settings, 1, 30_000)
    with Engine(InProcess, 1, 2, progress=False) as engine:
        return run.execute(engine)


def near_copy(text: str) -> str:
    """The text with another last word: a few shingles of many differ."""
    return text.rsplit(" ", 1)[0] + " changed."


def page(number: int, text: str, url: str | None = None) -> dict:
    return {"text": f"{text}\n\n{BOILERPLATE}\nUnique line {number}", "url": url or f"https://x.org/{number}"}


@pytest.fixture
def inputs(tmp_path) -> Path:
    """Two files of pages: near-copies and repeated URLs within a file and across files."""
    texts = [article(i, words=80) for i in range(12)]
    pages = [page(i, text) for i, text in enumerate(texts)]
    pages += [page(20 + i, near_copy(texts[i])) for i in (0, 1, 5)]
    pages += [page(30, texts[7])]
    pages += [page(40, article(40, words=80), url=OTHER_ADDRESS_OF_3)]
    pages += [
        page(50, article(50, words=52) + f"\n{article(60, words=30)}"),
        page(51, f"{article(60, words=30)}\n" * 2),
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(json_lines(pages[::2]))
    (folder / "b.jsonl").write_bytes(json_lines(pages[1::2]))
    return folder


def same_address(a: str, b: str) -> bool:
    return a == b or {a, b} == {"https://x.org/3", OTHER_ADDRESS_OF_3}


def similarity(a: str, b: str) -> float:
    def shingles(text):
        words = "".join(c for c in text.lower() if c.isalnum() or c.isspace()).split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


def test_near_duplicates_and_urls_against_brute_force(inputs, tmp_path):
    execute(inputs, tmp_path / "none", DedupSettings("none"))
    everything = records(tmp_path / "none")
    # Every document in turn is kept unless one before it has its URL or is like it.
    kept = []
    for record in everything:
        if not any(
            same_address(record["url"], other["url"]) or similarity(record["text"], other["text"]) >= 0.8
            for other in kept
        ):
            kept.append(record)
    report = execute(inputs, tmp_path / "out", DedupSettings("minhash"))
    assert [record["id"] for record in records(tmp_path / "out")] == [record["id"] for record in kept]
    assert report.summary.removed == {"url_duplicates": 1, "near_duplicates": 4}
    assert report.summary.kept == len(kept) == len(everything) - 5


def test_removed_documents_name_the_one_that_stays(inputs, tmp_path):
    execute(inputs, tmp_path / "out", DedupSettings("minhash"))
    kept = {record["id"]: record for record in records(tmp_path / "out")}
    for record in records(tmp_path / "out", "rejected"):
        what, _, original = record["reason"].rpartition(" ")
        if record["filter"] == "near_duplicates":
            assert what == "a near-duplicate of document"
            assert similarity(record["text"], kept[original]["text"]) >= 0.8
        else:
            assert (record["filter"], what) == ("url_duplicates", "the same URL as document")
            assert same_address(record["url"], kept[original]["url"])


def test_repeated_lines_go_after_near_duplicates(inputs, tmp_path):
    report = execute(inputs, tmp_path / "both", DedupSettings("both"))
    kept = records(tmp_path / "both")
    lines = [line for record in kept for line in record["text"].split("\n") if line]
    assert len(lines) == len(set(lines))
    assert not any(BOILERPLATE in record["text"] for record in kept)
    assert any("\n\nUnique line" in record["text"] for record in kept), "paragraphs stay apart"
    (short,) = (r for r in records(tmp_path / "both", "rejected") if r["filter"] == "exact_lines")
    assert short["reason"].startswith("3 words are left without the lines that occur elsewhere, at least 50")
    assert [short["text"][start:end] for start, end, _ in short["spans"]] == [article(60, words=30)] * 2 + [BOILERPLATE]
    execute(inputs, tmp_path / "near", DedupSettings("minhash"))
    ids = {record["id"] for record in records(tmp_path / "near")} - {short["id"]}
    assert {record["id"] for record in kept} == ids
    assert report.summary.edited["exact_lines"] == len(kept)


def test_every_document_ends_in_one_place_whatever_the_method(inputs, tmp_path):
    counts = {}
    for method in METHODS:  # in one folder: other settings of deduplication redo deduplication alone
        report = execute(inputs, tmp_path / "out", DedupSettings(method))
        kept, rejected = records(tmp_path / "out"), records(tmp_path / "out", "rejected")
        assert len({record["id"] for record in kept + rejected}) == len(kept) + len(rejected) == report.summary.pages
        counts[method] = len(kept)
        execute(inputs, tmp_path / method, DedupSettings(method))
        assert shards(tmp_path / "out") == shards(tmp_path / method)
    assert counts["none"] == counts["url"] + 1 == counts["minhash"] + 5


def test_a_run_that_ends_at_any_moment_is_continued(inputs, tmp_path, monkeypatch):
    """Every file appears by a rename. The run ends before its first one, before its second one, and so on."""
    execute(inputs, tmp_path / "whole", DedupSettings("both"))
    expected = shards(tmp_path / "whole")
    rename = os.replace
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power fails here, and thousands of files are written
    for moment in itertools.count(1):
        out, renames = tmp_path / f"out{moment}", itertools.count(1)

        def rename_until(source, target, renames=renames, moment=moment):
            if next(renames) == moment:
                raise KeyboardInterrupt
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", rename_until)
            try:
                execute(inputs, out, DedupSettings("both"))
            except KeyboardInterrupt:
                pass
            else:
                break
        execute(inputs, out, DedupSettings("both"))
        assert shards(out) == expected, f"after an end before rename {moment}"
    assert moment > 30, "the run was ended between every two files"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "fuzzy"}, "dedup method 'fuzzy' is unknown; allowed are none, url, exact, minhash, both"),
        ({"num_bands": 7}, "num_bands is 7: it must be at least 1 and divide num_hashes, 100"),
        ({"jaccard_threshold": 1.5}, "jaccard_threshold is 1.5: it must be above 0 and at most 1"),
        ({"ngrams": "five"}, "dedup ngrams is 'five': a whole number of at least 1 is needed"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UsageError) as caught:
        DedupSettings(**settings)
    assert message in str(caught.value)
