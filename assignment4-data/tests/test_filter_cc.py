"""The command: with no argument, on real files, with bad files and bad flags."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cs336_basics.command_line import UsageError, run_command
from cs336_data.filters import DEFAULT_CHAIN, make_filter
from cs336_data.pipeline.command import main
from cs336_data.pipeline.settings import dedup_settings, filter_specs, read_config
from cs336_data.small_web.writer import read_labels

from .pipeline_runs import FILTER_CC, records, squeezed, write_inputs


def figures(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def check_places(out: Path) -> None:
    """Every page read ends in one place, once; rejected ones have a filter and a reason."""
    summary = figures(out)["summary"]
    kept, rejected = records(out), records(out, "rejected")
    assert len({record["id"] for record in kept + rejected}) == len(kept) + len(rejected) == summary["pages"]
    assert len(kept) == summary["kept"]
    for record in rejected:
        assert record["filter"]
        assert record["reason"]
        assert all(0 <= start <= end <= len(record["text"]) for start, end, _ in record["spans"])
    assert all(record["text"].strip() for record in kept)


@pytest.mark.slow
def test_with_no_argument_it_does_the_whole_way_on_a_small_web(tmp_path):
    done = subprocess.run([sys.executable, FILTER_CC], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "data" / "filtered"
    check_places(out)
    removed = figures(out)["summary"]["removed"]
    assert figures(out)["stages"] == [*DEFAULT_CHAIN, "url_duplicates", "near_duplicates", "exact_lines"]
    assert min(removed[name] for name in ("language", "gopher", "near_duplicates", "url_duplicates")) > 0
    assert "**What each filter removed**" in done.stdout
    assert "report: data/filtered/report.html" in done.stdout
    # What the web's labels say should be kept is mostly kept, and little else.
    should = {label["url"] for label in read_labels(tmp_path / "data" / "small_web") if label["should_keep"]}
    kept = {record["url"] for record in records(out)}
    assert len(kept & should) > 0.9 * len(kept)
    assert len(kept & should) > 0.6 * len(should)


def test_the_smoke_run_goes_to_a_folder_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["--smoke", "--workers", "1", "--quiet", "--filters", "gopher", "pii"])
    assert figures(tmp_path / "data" / "filtered" / "smoke")["summary"]["pages"] == 60
    assert "| pages read | 60 |" in squeezed(capsys.readouterr().out)


@pytest.mark.slow
def test_real_archives_and_web_text(shared_data, tmp_path, capsys):
    inputs = [str(shared_data / "warc" / "*.warc*"), str(shared_data / "web" / "*")]
    main([*inputs, "--out", str(tmp_path / "out"), "--keep_rejected", "--quiet"])
    check_places(tmp_path / "out")
    summary = figures(tmp_path / "out")["summary"]
    assert figures(tmp_path / "out")["failed"] == {}
    assert summary["pages"] > 1800
    kept = records(tmp_path / "out")
    assert {record["language"] for record in kept} == {"en"}
    by_source = {Path(record["source"]).name for record in kept}
    assert {"c4_sample.jsonl", "dolma_CC-MAIN-20190717_697docs.jsonl.gz", "example.warc.gz"} <= by_source
    assert summary["masked"]["emails"] > 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "kept").iterdir()}
    main([*inputs, "--out", str(tmp_path / "out"), "--keep_rejected", "--quiet"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "kept").iterdir()} == before
    assert "8 of 8 files are done already" in capsys.readouterr().out


def test_a_bad_file_shows_in_the_report_and_the_exit_code(tmp_path, capsys):
    write_inputs(tmp_path / "in", 1)
    (tmp_path / "in" / "noise.warc.gz").write_bytes(b"\x8f\x02" * 500)
    out = tmp_path / "out"
    flags = ["--out", str(out), "--workers", "1", "--quiet", "--filters", "gopher", "--dedup", "none"]
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "in"), *flags])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert "noise.warc.gz | UnreadableInputError" in squeezed(captured.out)
    assert captured.err == "error: 1 of 2 input files failed; see above\n"
    assert len(records(out)) == 4


def test_a_configuration_file_and_flags(tmp_path):
    write_inputs(tmp_path / "in", 1)
    config = tmp_path / "chain.yaml"
    config.write_text("filters:\n- gopher: {min_words: 5}\ndedup: {method: url}\n")
    flags = [str(tmp_path / "in"), "--workers", "1", "--quiet", "--config", str(config)]
    main([*flags, "--out", str(tmp_path / "a")])
    assert figures(tmp_path / "a")["summary"]["kept"] == 6
    assert figures(tmp_path / "a")["stages"] == ["gopher", "url_duplicates"]
    main([*flags, "--out", str(tmp_path / "b"), "--option", "gopher.min_words=50", "--dedup", "none"])
    assert figures(tmp_path / "b")["summary"]["kept"] == 4
    assert figures(tmp_path / "b")["stages"] == ["gopher"]


def test_the_example_configuration_is_the_default():
    config = read_config(FILTER_CC.parent.parent / "configs" / "filter_cc.yaml")
    written, default = filter_specs(config, None, []), filter_specs({}, None, [])
    assert dedup_settings(config) == dedup_settings({})
    assert [spec.name for spec in written] == [spec.name for spec in default]
    for one, other in zip(written, default, strict=True):
        assert vars(make_filter(one.name, **dict(one.options))) == vars(make_filter(other.name))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["absent.warc.gz"], "no input file matches 'absent.warc.gz'"),
        (["{in}", "--filters", "smell"], "filter 'smell' is unknown: it must be one of"),
        (["{in}", "--filters", "gopher", "--option", "gopher.smell=1"], "filter gopher has no option 'smell'"),
        (
            ["{in}", "--filters", "gopher", "--option", "gopher.min_words=few"],
            "filter gopher cannot take min_words='few': it has min_words: int = 50",
        ),
        (["{in}", "--workers", "0"], "--workers 0 is too few: at least 1 is needed"),
        (["{in}", "--pages_per_wet", "0"], "--pages_per_wet 0 is too few"),
        (["{in}", "--slurm_option", "x"], "option 'x' must have the form NAME=VALUE"),
    ],
)
def test_bad_flags(tmp_path, flags, message):
    write_inputs(tmp_path / "in", 1)
    with pytest.raises(UsageError) as caught:
        main([flag.replace("{in}", str(tmp_path / "in")) for flag in flags] + ["--out", str(tmp_path / "out")])
    assert message in str(caught.value)
    assert not (tmp_path / "out" / "kept").exists()


def test_an_unwritable_folder_is_one_sentence(tmp_path, capsys):
    write_inputs(tmp_path / "in", 1)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as caught:
        run_command(main, [str(tmp_path / "in"), "--out", str(tmp_path / "file" / "out")])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_report_in_a_browser(tmp_path, browser):
    write_inputs(tmp_path / "in", 2)
    out = tmp_path / "out"
    main(
        [str(tmp_path / "in"), "--out", str(out), "--workers", "1", "--quiet", "--filters", "gopher", "--dedup", "url"]
    )
    page = browser.new_page()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((out / "report.html").as_uri())
    assert page.locator("h1").inner_text() == "Filtering web pages"
    assert "10 words, at least 50 are needed" in page.inner_text("body")
    assert requests == [(out / "report.html").as_uri()], "it needs nothing beside it"
    shutil.rmtree(out)
