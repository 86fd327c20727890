"""The default run: stages as processes that are done once, resumed and stopped; the whole chain in its smoke form."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import pytest

from cs336_alignment.default_run import schedule
from cs336_alignment.default_run.command import main, markdown_table, parse_seeds
from cs336_alignment.default_run.results import Spread
from cs336_alignment.default_run.schedule import RECORD_NAME, is_finished, read_record, run_stages
from cs336_alignment.default_run.stages import PROGRAMS, TRAINED, Stage, all_stages
from cs336_basics.command_line import UsageError

PROGRAM = """
import argparse, os, time
from pathlib import Path

def main(argv=None):
    parser = argparse.ArgumentParser()
    for name in ("out", "word", "resume_ckp", "waits_for"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--fails", action="store_true")
    arguments = parser.parse_args(argv)
    out = Path(arguments.out)
    log = out.parent / "log.txt"
    with log.open("a") as file:
        file.write(f"{out.name} {arguments.word} {arguments.resume_ckp} {os.getpid()}\\n")
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "checkpoints" / "checkpoint_1.pt").touch()
    if arguments.waits_for:
        while not (out.parent / arguments.waits_for).exists():
            time.sleep(0.02)
    if arguments.fails:
        print("this is why")
        raise SystemExit(3)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder, and the stages' program on the path of processes."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "stage_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def _stage(name, *needs, has_checkpoints=False, **flags):
    return Stage(name, "stage_program", flags, needs, has_checkpoints)


def _log(run):
    path = run / "log.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


# ---- scheduling -----------------------------------------------------------------------------------------------------


def test_stages_run_after_those_they_need_and_only_once(run):
    first = _stage("first", word="a")
    second, third = _stage("second", first, word="b"), _stage("third", first, word="c")
    last = _stage("last", second, third, word="d")
    stages = [first, second, third, last]
    run_stages(run, stages, jobs=2, progress=False)
    names = [name for name, *_ in _log(run)]
    assert names[0] == "first"
    assert set(names[1:3]) == {"second", "third"}
    assert names[3:] == ["last"]
    assert all(read_record(run, stage)["cpu_seconds"] > 0 for stage in stages)
    run_stages(run, stages, jobs=2, progress=False)
    assert len(_log(run)) == 4


def test_two_stages_really_run_at_the_same_time(run):
    # Each waits for what the other writes: one after the other they would never end.
    one, other = _stage("one", waits_for="other/checkpoints"), _stage("other", waits_for="one/checkpoints")
    run_stages(run, [one, other], jobs=2, progress=False)
    assert is_finished(run, one)
    assert is_finished(run, other)


def test_other_settings_repeat_a_stage_and_all_that_rests_on_it(run):
    def chain(word):
        first = _stage("first", word=word)
        return [first, _stage("second", first, word="same"), _stage("apart", word="same")]

    run_stages(run, chain("a"), jobs=1, progress=False)
    run_stages(run, chain("b"), jobs=1, progress=False)
    assert sorted(name for name, *_ in _log(run)) == ["apart", "first", "first", "second", "second"]


def test_a_failure_is_told_with_its_reason_and_what_was_done_stays_done(run):
    good, bad = _stage("good", word="a"), _stage("bad", word="b", fails=True)
    after = _stage("after", bad, word="c")
    with pytest.raises(UsageError, match=r"stage bad ended with code 3; .*output\.txt:\nthis is why"):
        run_stages(run, [good, bad, after], jobs=1, progress=False)
    assert is_finished(run, good)
    assert not is_finished(run, bad)
    assert "after" not in [name for name, *_ in _log(run)]


def test_an_unfinished_stage_goes_on_from_its_checkpoint(run):
    bad = _stage("bad", has_checkpoints=True, fails=True)
    for _ in range(2):
        with pytest.raises(UsageError):
            run_stages(run, [bad], jobs=1, progress=False)
    assert [resumed for _, _, resumed, _ in _log(run)] == ["None", "latest"]


def test_ctrl_c_ends_the_programs_that_run(run, monkeypatch):
    log = run / "log.txt"

    def wait(seconds):
        if log.exists() and log.read_text().endswith("\n"):
            signal.raise_signal(signal.SIGINT)
        time.sleep(seconds)

    monkeypatch.setattr(schedule, "time", SimpleNamespace(time=time.time, sleep=wait))
    # As it is in a terminal: what a shell starts in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_stages(run, [_stage("slow", waits_for="never")], jobs=1, progress=False)
    finally:
        signal.signal(signal.SIGINT, before)
    ((_, _, _, child),) = _log(run)
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)
    assert not json.loads((run / "slow" / RECORD_NAME).read_text())["finished"]


# ---- the chain ------------------------------------------------------------------------------------------------------


def test_the_chain_has_every_stage_for_every_seed(tmp_path):
    names = [stage.name for stage in all_stages(tmp_path, [0, 7], smoke=False)]
    for seed in (0, 7):
        assert {f"seed_{seed}/{name}" for name in PROGRAMS} <= set(names)
        assert {f"seed_{seed}/{name}_measured" for name in (*TRAINED, "base")} <= set(names)
    assert len(names) == len(set(names)) == 1 + 2 * (len(PROGRAMS) + len(TRAINED) + 1)


def test_what_is_no_list_of_seeds_is_refused():
    assert parse_seeds("2, 0,0") == [0, 2]
    for text in ("", "a", "1,-2", "1.5"):
        with pytest.raises(UsageError, match="--seeds"):
            parse_seeds(text)
    with pytest.raises(UsageError, match="--jobs 0 is too few"):
        main(["--jobs", "0"])


def test_figures_are_shown_as_mean_and_range():
    assert str(Spread.of([0.9, 0.8, 1.0])) == "90.0 % (80.0 – 100.0)"
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"


@pytest.fixture
def stages_in_this_process(monkeypatch):
    """A stage's program runs here, and then a process ends as it did: eleven imports of torch would take a minute."""

    def run_here(command, stdout, **more):
        python, option, call, *arguments = command
        code = 0
        with (
            monkeypatch.context() as patch, open(stdout.fileno(), "w", closefd=False) as text,
            redirect_stdout(text), redirect_stderr(text),
        ):  # fmt: skip
            patch.setattr(sys, "argv", [option, *arguments])
            try:
                exec(call, {})
            except SystemExit as ending:
                code = ending.code or 0
        return subprocess.Popen([python, option, f"raise SystemExit({code})"], stdout=stdout, **more)

    names = {name: getattr(subprocess, name) for name in ("STDOUT", "DEVNULL")}
    monkeypatch.setattr(schedule, "subprocess", SimpleNamespace(Popen=run_here, **names))


@pytest.mark.slow
def test_the_whole_chain_in_its_smoke_form(tmp_path, monkeypatch, capsys, stages_in_this_process):
    monkeypatch.chdir(tmp_path)
    main(["--smoke", "--quiet", "--out", "out"])
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    models = results["seeds"]["0"]["models"]
    assert set(models) == {"base", *TRAINED}
    for ways in models.values():
        for way in ways.values():
            assert way["questions"] == 16
            assert 0 <= way["accuracy"]["low"] <= way["accuracy"]["value"] <= way["accuracy"]["high"] <= 1
    assert models["base"]["sampled"]["right_form"] == 0.0
    assert results["pretraining"]["cpu_seconds"] > 0
    seconds = results["seeds"]["0"]["seconds"]
    assert 0 < seconds["wall"] <= sum(stage["seconds"] for stage in seconds["stages"].values()) + 0.1
    for name in ("reward_model", "dpo"):
        assert 0 <= results["seeds"]["0"][name]["last"]["val_accuracy"] <= 1
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    report = (out / "report.html").read_text()
    assert "SFT, then GRPO" in report
    assert "data:image/png" in report
    table = (out / "results.md").read_text()
    assert re.search(r"\| base model \| 0\.0 % \(0\.0 – 0\.0\) \|", table)
    assert table in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in out.rglob(RECORD_NAME)}
    main(["--smoke", "--quiet", "--out", "out"])
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob(RECORD_NAME)}
