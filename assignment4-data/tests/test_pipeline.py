"""The pipeline's parts: inputs, pages, settings, the engine, markers, reports; and whole runs in one process."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.executors import LocalExecutor
from cs336_data.filters import DEFAULT_CHAIN
from cs336_data.pipeline.chain import FilterSpec, build_chain
from cs336_data.pipeline.compressed_json import read_lines, read_objects, write_objects
from cs336_data.pipeline.dedup_settings import DedupSettings
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.filtering import FilterSettings
from cs336_data.pipeline.inputs import find_units
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.pages import PageCounts, read_pages
from cs336_data.pipeline.report import RunReport
from cs336_data.pipeline.run import Run
from cs336_data.pipeline.settings import dedup_settings, filter_specs, read_config
from cs336_data.pipeline.summary import Example, Summary, total

from .pipeline_runs import InProcess, article, documents, json_lines, records, shards, squeezed, write_inputs
from .worker_functions import Item, double

GOPHER = FilterSettings((FilterSpec("gopher"),), keep_rejected=True)


def execute(patterns, out: Path, filtering=GOPHER, redo=False) -> RunReport:
    run = Run(find_units(patterns), Layout(out), filtering, DedupSettings("none"), 1, 30_000, redo)
    with Engine(InProcess, 1, 2, progress=False) as engine:
        return run.execute(engine)


# Input files


def test_paths_folders_and_globs_name_each_file_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/1.jsonl", "a/b/1.jsonl", "a/2.warc.gz", "a/.hidden"):
        (tmp_path / name).write_bytes(b"{}")
    whole = find_units([f"{tmp_path}/**/*.jsonl", tmp_path / "a", str(tmp_path / "a" / "1.jsonl")])
    assert sorted(os.path.relpath(unit.path, tmp_path) for unit in whole) == ["a/1.jsonl", "a/2.warc.gz", "a/b/1.jsonl"]
    assert len({unit.key for unit in whole}) == 3, "files of the same name in different folders"
    assert [unit.key for unit in whole] == sorted(unit.key for unit in whole)
    for missing in ("absent.jsonl", "*.wet"):
        with pytest.raises(UsageError, match="no input file matches"):
            find_units([tmp_path / missing])


def test_an_odd_file_name_is_a_file_not_a_pattern(tmp_path):
    path = tmp_path / "part[1].jsonl"
    path.write_bytes(json_lines(documents(1, 1)))
    assert [unit.path for unit in find_units([path])] == [str(path)]


# Pages

OBJECTS = [{"text": "eins\nzwei", "url": "u"}, {"text": "ü", "metadata": {"url": "v"}}, {"text": ""}]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_json_lines_of_every_compression(tmp_path, ending):
    compress = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending]
    content = json_lines(OBJECTS)
    half = content.index(b"\n") + 1
    path = tmp_path / f"documents.jsonl{ending}"
    path.write_bytes(compress(content[:half]) + compress(content[half:]))  # several members or frames are one file
    counts = PageCounts()
    pages = list(read_pages(path, counts))
    assert [(page.extract(), page.url) for page in pages] == [("eins\nzwei", "u"), ("ü", "v"), ("", "")]
    assert [page.offset for page in pages] == [0, half, len(content) - len(json_lines(OBJECTS[2:]))]
    assert not counts.bad


def test_bad_lines_and_broken_off_files_are_counted(tmp_path):
    path = tmp_path / "documents.jsonl.gz"
    content = json_lines(documents(0, 200))
    path.write_bytes(gzip.compress(b'no JSON\n{"title": 1}\n[]\n\n{"text": 5}\n' + content)[:-400])
    counts = PageCounts()
    pages = list(read_pages(path, counts))
    assert 0 < len(pages) < 200
    assert [page.text for page in pages] == [d["text"] for d in documents(0, len(pages))]
    assert counts.bad["a line that is not JSON"] == 1
    assert counts.bad['an object without "text"'] == 3
    assert any(reason.startswith("compressed data that cannot be read") for reason in counts.bad)


def warc(records) -> bytes:
    """A WARC file, by hand after ISO 28500."""
    parts = []
    for kind, content_type, block in records:
        head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:0>\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        head += (
            f"WARC-Target-URI: http://x.org/\r\nContent-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
        )
        parts.append(head.encode() + block + b"\r\n\r\n")
    return b"".join(parts)


@pytest.mark.parametrize("reader", ["fastwarc", "warcio"])
def test_pages_of_an_archive(tmp_path, reader):
    def http(status, kind, body):
        return f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n\r\n".encode() + body

    message = "application/http; msgtype=response"
    path = tmp_path / "crawl.warc"
    path.write_bytes(
        warc(
            [
                ("warcinfo", "application/warc-fields", b"software: none\r\n"),
                (
                    "response",
                    message,
                    http(200, "text/html; charset=latin-1", b"<html><body><p>caf\xe9</p></body></html>"),
                ),
                ("response", message, http(404, "text/html", b"<p>gone</p>")),
                ("response", message, http(200, "image/png", b"\x89PNG")),
                ("response", message, http(200, "text/plain", b"plain <b>text</b>")),
                ("conversion", "text/plain", "extracted tëxt".encode()),
            ]
        )
    )
    counts = PageCounts()
    texts = [page.extract() for page in read_pages(path, counts, reader)]
    assert texts == ["café", "plain <b>text</b>", "extracted tëxt"]
    assert counts.skipped == {"other record types": 1, "HTTP status 404": 1, "content type image/png": 1}


@settings(deadline=None, derandomize=True, max_examples=50)
@given(texts=st.lists(st.text(), max_size=5))
def test_any_text_survives_being_written(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("texts") / "x.jsonl.zst"
    with write_objects(path) as file:
        for text in texts:
            file.write({"text": text})
    assert [value["text"] for value in read_objects(path)] == texts
    assert len(list(read_lines(path))) == len(texts)


# Filters and settings


def test_a_chain_stops_at_the_first_rejection_and_hands_edits_on():
    chain = build_chain((FilterSpec("pii"), FilterSpec("gopher", (("min_words", 5),))))
    seconds = Counter()
    kept = chain(Document("Write to me@example.org about the river and the town."), seconds)
    assert kept.rejected_by is None
    assert "|||EMAIL_ADDRESS|||" in kept.document.text
    assert kept.edited_by == ("pii",)
    assert kept.document.metadata["masked"]["emails"] == 1
    rejected = chain(Document("me@example.org"), seconds)
    assert rejected.rejected_by == "gopher"
    assert rejected.document.text == "|||EMAIL_ADDRESS|||"
    assert "at least 5" in rejected.decision.reason
    assert set(seconds) == {"pii", "gopher"}


def test_filters_come_from_the_configuration_names_and_options(tmp_path):
    path = tmp_path / "filters.yaml"
    path.write_text(
        "filters:\n- gopher: {min_words: 10}\n- language: {languages: [en, de]}\n- pii\ndedup: {method: none}\n"
    )
    config = read_config(path)
    assert [(spec.name, dict(spec.options)) for spec in filter_specs(config, None, [])] == [
        ("gopher", {"min_words": 10}),
        ("language", {"languages": ("en", "de")}),
        ("pii", {}),
    ]
    (gopher,) = filter_specs(config, ["gopher"], ["gopher.max_words=2e3", "gopher.rules=paper"])
    assert dict(gopher.options) == {"min_words": 10, "max_words": "2e3", "rules": "paper"}
    assert [spec.name for spec in filter_specs({}, None, [])] == list(DEFAULT_CHAIN)
    assert dedup_settings(config) == DedupSettings("none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("filters: [", "is not YAML"),
        ("- gopher", "must hold a mapping"),
        ("filter: [gopher]", "section 'filter' is unknown; allowed are filters and dedup"),
        ("filters: gopher", "section 'filters' must be a list, not 'gopher'"),
        ("dedup: minhash", "section 'dedup' must be a mapping, not 'minhash'"),
        ("filters: [{gopher: 3}]", "filter {'gopher': 3} must be a name"),
        ("dedup: {bands: 3}", "dedup setting 'bands' is unknown; allowed are method"),
        ("dedup: {method: fuzzy}", "dedup method 'fuzzy' is unknown"),
    ],
)
def test_bad_configurations(tmp_path, content, message):
    path = tmp_path / "filters.yaml"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        config = read_config(path)
        filter_specs(config, None, [])
        dedup_settings(config)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("min_words", "must have the form NAME=VALUE"),
        ("min_words=3", "'min_words' must have the form FILTER.OPTION"),
        ("pii.x=3", "for a filter that does not run; these do: gopher"),
        ("gopher.min_words=[", "is not a YAML value"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(UsageError) as caught:
        filter_specs({}, ["gopher"], [option])
    assert message in str(caught.value)


# The engine


def test_the_engine_survives_items_that_kill_their_process():
    items = [Item(f"k{i}", kills=i in (3, 4)) for i in range(8)] + [Item("bad")]
    with Engine(lambda: LocalExecutor(2), 2, 4, progress=False) as engine:
        results = engine.run("doubling", double, items)
    died = "the process at work on it died (out of memory, or a crash)"
    assert results.failed == {"k3": died, "k4": died, "bad": "ValueError: a bad item"}
    assert results.done == {f"k{i}": f"k{i}k{i}" for i in range(8) if i not in (3, 4)}


@settings(deadline=None, derandomize=True, max_examples=50)
@given(sizes=st.lists(st.integers(0, 10**9), max_size=40), workers=st.integers(1, 4))
def test_every_item_is_worked_on_once(sizes, workers):
    items = [Item(str(i), size) for i, size in enumerate(sizes)]
    with Engine(InProcess, workers, 2 * workers, progress=False) as engine:
        results = engine.run("doubling", double, items)
    assert results.done == {item.key: item.key * 2 for item in items}


# Whole runs


def test_a_run_sorts_documents_with_reasons(tmp_path):
    write_inputs(tmp_path / "in", 2)
    report = execute([tmp_path / "in"], tmp_path / "out")
    kept, rejected = records(tmp_path / "out"), records(tmp_path / "out", "rejected")
    assert len(kept) == report.summary.kept == 8
    assert len(rejected) == report.summary.removed["gopher"] == 4
    first = next(record for record in kept if record["url"] == "https://example.org/1")
    source = str(tmp_path / "in" / "part0.jsonl")
    offset = len(json_lines(documents(0, 1)))
    assert {**first, "id": None} == {
        "id": None, "url": "https://example.org/1", "text": article(1), "source": source, "offset": offset,
        "language": None, "scores": {}, "masked": {},
    }  # fmt: skip
    assert len({record["id"] for record in kept + rejected}) == 12
    assert {record["filter"] for record in rejected} == {"gopher"}
    assert {record["reason"] for record in rejected} == {"10 words, at least 50 are needed"}
    assert all(isinstance(record["spans"], list) for record in rejected)


def test_a_rerun_does_what_is_missing_or_changed_and_nothing_else(tmp_path):
    paths = write_inputs(tmp_path / "in", 3)
    out = tmp_path / "out"
    execute([tmp_path / "in"], out)
    layout, units = Layout(out), find_units([tmp_path / "in"])
    before = {unit.key: layout.filter_marker(unit.key).stat().st_mtime_ns for unit in units}
    whole = shards(out)
    # A kill between the data and its marker, and one between two shards:
    layout.filter_marker(units[0].key).unlink()
    layout.shard_marker(units[1].key).unlink()
    layout.kept(units[1].key).unlink()
    paths[2].write_bytes(json_lines(documents(500, 2)))
    execute([tmp_path / "in"], out)
    now = {unit.key: layout.filter_marker(unit.key).stat().st_mtime_ns for unit in units}
    assert [now[unit.key] == before[unit.key] for unit in units] == [False, True, False]
    fresh = tmp_path / "fresh"
    execute([tmp_path / "in"], fresh)
    assert shards(out) == shards(fresh) != whole


def test_inputs_may_come_and_go(tmp_path):
    paths = write_inputs(tmp_path / "in", 3)
    for chosen in (paths[:2], paths, paths[1:]):
        report = execute(chosen, tmp_path / "out")
        assert {record["source"] for record in records(tmp_path / "out")} == {str(path) for path in chosen}
        assert report.files == len(chosen)
        assert report.summary.pages == 6 * len(chosen)


def test_other_settings_are_refused_or_redone(tmp_path):
    write_inputs(tmp_path / "in", 1)
    out = tmp_path / "out"
    execute([tmp_path / "in"], out)
    other = FilterSettings((FilterSpec("gopher", (("min_words", 5),)),), keep_rejected=True)
    with pytest.raises(UsageError) as caught:
        execute([tmp_path / "in"], out, other)
    expected = "holds a run with other settings (filters: gopher was {}, is now {'min_words': 5}): give another --out"
    assert expected in str(caught.value)
    assert len(records(out)) == 4, "what is there stays"
    execute([tmp_path / "in"], out, other, redo=True)
    assert len(records(out)) == 6


def test_a_bad_file_is_reported_and_does_not_stop_the_others(tmp_path):
    write_inputs(tmp_path / "in", 1)
    (tmp_path / "in" / "noise.warc.gz").write_bytes(b"\x8f\x02" * 500)
    (tmp_path / "in" / "noise.jsonl.zst").write_bytes(b"\x8f\x02" * 500)
    report = execute([tmp_path / "in"], tmp_path / "out")
    assert [Path(path).name for path in report.failed] == ["noise.jsonl.zst", "noise.warc.gz"]
    assert all("nothing in it can be read" in reason for reason in report.failed.values())
    assert len(records(tmp_path / "out")) == 4
    (tmp_path / "in" / "noise.warc.gz").unlink()
    (tmp_path / "in" / "noise.jsonl.zst").write_bytes(zstandard.compress(json_lines(documents(100, 1))))
    assert execute([tmp_path / "in"], tmp_path / "out").failed == {}, "a mended file is done by the next run"
    assert len(records(tmp_path / "out")) == 5


# Reports


def test_summaries_add_up_and_survive_json():
    parts = [
        Summary(
            10, 6, Counter(a=3, b=1), Counter(a=1), Counter(a=0.5), 100, 60, examples=[Example(5, "a", "u", "t", "r")]
        ),
        Summary(
            1,
            1,
            Counter(),
            Counter(),
            Counter(a=0.25, c=1.0),
            7,
            7,
            examples=[Example(i, "a", "", "") for i in range(6)],
        ),
    ]
    whole = total(Summary.from_json(json.loads(json.dumps(part.as_json()))) for part in parts)
    assert (whole.pages, whole.kept, whole.characters_read) == (11, 7, 107)
    assert whole.removed == {"a": 3, "b": 1}
    assert whole.seconds == {"a": 0.75, "c": 1.0}
    assert [example.order for example in whole.examples] == [0, 1, 2]


def test_the_report_counts_and_projects(tmp_path):
    summary = Summary(1000, 600, Counter(extract=100, first=300), Counter(second=9), Counter(extract=50.0, first=2.0))
    summary.add_example(Example(1, "first", "http://u", "<b>bold</b> | text", "too short"))
    report = RunReport(summary, 3, {"x.warc": "broken"}, ["first", "second"], 4, 30_000, {"dedup": {}})
    # 2 ms a page without extraction, 30,000 pages a file, 4 cores.
    assert report.projected_hours(5000) == pytest.approx(0.002 * 30_000 * 5000 / 4 / 3600)
    text = squeezed(report.markdown())
    assert "| first | 900 | 300 | 33.3 % | 30.0 % | 0 |" in text
    assert "| second | 600 | 0 | 0.0 % | 0.0 % | 9 |" in text
    assert "| x.warc | broken |" in text
    titles = [section.title for section in report.sections()]
    assert "Examples of what first removed" in titles
    assert "Examples of what second removed" not in titles


def test_a_run_writes_its_report(tmp_path):
    write_inputs(tmp_path / "in", 1)
    execute([tmp_path / "in"], tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "Examples of what gopher removed" in html
    assert "10 words, at least 50 are needed" in html
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["summary"]["pages"] == 6
    assert figures["settings"]["filters"] == {"gopher": {}}
    assert set(figures["projected_hours"]) == {"5000", "100000"}
