"""A run that is killed or interrupted loses nothing and duplicates nothing: the same command goes on."""

import os
import signal
from pathlib import Path

import pytest

from .pipeline_runs import (
    PIPE_NAME,
    documents,
    filtered_units,
    finish,
    hold,
    json_lines,
    records,
    release,
    shards,
    start,
    wait_until,
    write_inputs,
)

FILES, HELD_DOCUMENTS = 5, 6
OTHERS = {f"part{i}" for i in range(FILES)}


@pytest.fixture
def inputs(tmp_path) -> Path:
    """Five files and a pipe that holds the run."""
    folder = tmp_path / "inputs"
    write_inputs(folder, FILES)
    os.mkfifo(folder / PIPE_NAME)
    return folder


def let_go(inputs: Path) -> None:
    """Put an ordinary file in the place of the pipe."""
    (inputs / PIPE_NAME).unlink()
    (inputs / PIPE_NAME).write_bytes(json_lines(documents(1000, HELD_DOCUMENTS)))


def modification_times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "work" / "filtered").glob("*.done.json")}


@pytest.mark.slow
def test_killed_runs_lose_nothing_and_duplicate_nothing(inputs, tmp_path):
    pipe, out = inputs / PIPE_NAME, tmp_path / "out"
    # 1: as soon as anything is complete.
    process = start(inputs, out, "--dedup", "none", "--workers", "2")
    wait_until(lambda: filtered_units(out), "a complete unit", process)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert not (out / "report.json").exists()
    first = modification_times(out)

    # 2: in the middle of a file, with all others complete.
    process = start(inputs, out, "--dedup", "none", "--workers", "2")
    wait_until(lambda: filtered_units(out) == OTHERS, "the other units", process)
    descriptor = hold(pipe, process)
    os.write(descriptor, json_lines(documents(2000, 3))[:-10])
    wait_until(lambda: list(out.glob("work/filtered/.held*.tmp")), "the half-written file", process)
    process.kill()
    finish(process)
    release(pipe, descriptor)  # the workers have ended with the command
    assert list(out.glob("work/filtered/.held*.tmp")), "the killed run leaves its temporary file"
    assert not list(out.glob("work/filtered/held*")), "nothing half-written under a final name"
    assert not (out / "kept").exists()
    second = modification_times(out)
    assert second.items() >= first.items(), "complete units are not done again"

    # 3: to the end.
    let_go(inputs)
    code, output, errors = finish(start(inputs, out, "--dedup", "none", "--workers", "2"))
    assert code == 0, errors
    assert "5 of 6 files are done already, 0 have changed since" in output
    assert modification_times(out).items() >= second.items()
    assert not list(out.rglob(".*.tmp"))

    code, _, errors = finish(start(inputs, tmp_path / "uninterrupted", "--dedup", "none", "--workers", "1"))
    assert code == 0, errors
    assert shards(out) == shards(tmp_path / "uninterrupted")
    urls = [record["url"] for record in records(out) + records(out, "rejected")]
    expected = [d["url"] for d in documents(0, 6 * FILES) + documents(1000, HELD_DOCUMENTS)]
    assert sorted(urls) == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize("to_group", [True, False], ids=["from the terminal", "to the command alone"])
def test_ctrl_c_ends_cleanly(inputs, tmp_path, to_group):
    out = tmp_path / "out"
    process = start(inputs, out, "--dedup", "none", "--workers", "1", group=True)
    descriptor = hold(inputs / PIPE_NAME, process)
    if to_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    code, _, errors = finish(process)
    assert code == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    release(inputs / PIPE_NAME, descriptor)
    let_go(inputs)
    code, _, errors = finish(start(inputs, out, "--dedup", "none"))
    assert code == 0, errors
    assert len(records(out)) + len(records(out, "rejected")) == 6 * FILES + HELD_DOCUMENTS


@pytest.mark.slow
def test_a_second_command_in_the_same_folder_is_refused(inputs, tmp_path):
    process = start(inputs, tmp_path / "out", "--dedup", "none", "--workers", "1")
    descriptor = hold(inputs / PIPE_NAME, process)
    code, _, errors = finish(start(inputs, tmp_path / "out"))
    assert code == 2
    assert errors == f"error: another run is at work in {tmp_path / 'out'}: wait for it or give another --out\n"
    process.kill()
    finish(process)
    release(inputs / PIPE_NAME, descriptor)
