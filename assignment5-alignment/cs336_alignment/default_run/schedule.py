"""Run stages as processes, several at a time, each when those it needs are finished; what is done is not done again.

Each stage's folder has `stage.json` with how far it has come and `output.txt` with what its program said.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cs336_alignment.default_run.stages import Stage
from cs336_basics.atomic_file import atomic_write
from cs336_basics.check_pointing import checkpoints_newest_first
from cs336_basics.command_line import UsageError

RECORD_NAME, OUTPUT_NAME = "stage.json", "output.txt"
_CALL = "from cs336_basics.command_line import run_command; from {module} import main; run_command(main)"
_LAST_LINES = 5
"""Of a failed program's output, for the message."""


@dataclass
class _Running:
    """A stage's process."""

    stage: Stage
    process: subprocess.Popen
    started: float


def read_record(run: Path, stage: Stage) -> dict[str, Any] | None:
    """How far a stage has come: `finished`, `seconds`, `cpu_seconds`; None if it has not begun with these settings."""
    try:
        record = json.loads((run / stage.name / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("fingerprint") == stage.fingerprint else None


def is_finished(run: Path, stage: Stage) -> bool:
    """Whether there is nothing left to do for a stage."""
    record = read_record(run, stage)
    return record is not None and record["finished"]


def run_stages(run: Path, stages: Sequence[Stage], jobs: int, progress: bool = True) -> None:
    """Run all stages that are not finished.

    Args:
        run: the folder of the whole run.
        stages: each behind those it needs.
        jobs: processes at a time; the cores are shared out evenly among them.
        progress: show a progress bar.

    Raises:
        UsageError: a program failed; its last lines are in the message.
    """
    done = {stage.name for stage in stages if is_finished(run, stage)}
    waiting = [stage for stage in stages if stage.name not in done]
    running: dict[int, _Running] = {}
    try:
        with tqdm(total=len(stages), initial=len(done), unit="stage", disable=not progress) as bar:
            while waiting or running:
                for stage in [one for one in waiting if all(needed.name in done for needed in one.needs)]:
                    if len(running) < jobs:
                        waiting.remove(stage)
                        started = _start(run, stage, jobs)
                        running[started.process.pid] = started
                bar.set_postfix_str(", ".join(one.stage.name for one in running.values()))
                ended = _wait(run, running)
                done.add(ended.name)
                bar.update()
    finally:
        _stop(running)


def _start(run: Path, stage: Stage, jobs: int) -> _Running:
    folder = run / stage.name
    record = read_record(run, stage)
    arguments = stage.arguments(folder)
    if record is None:
        shutil.rmtree(folder, ignore_errors=True)
        record = {"fingerprint": stage.fingerprint, "finished": False, "seconds": 0.0, "cpu_seconds": 0.0}
    elif stage.has_checkpoints and checkpoints_newest_first(folder / "checkpoints"):
        arguments += ["--resume_ckp", "latest"]
    _write_record(folder, record)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with open(folder / OUTPUT_NAME, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _CALL.format(module=stage.module), *arguments],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )  # fmt: skip
    return _Running(stage, process, time.time())


def _wait(run: Path, running: dict[int, _Running]) -> Stage:
    """Wait for the next process to end, and write down what it took."""
    while True:
        for one in running.values():
            # Not Popen.poll, which does not tell the processor time.
            pid, status, usage = os.wait4(one.process.pid, os.WNOHANG)
            if pid:
                one.process.returncode = os.waitstatus_to_exitcode(status)
                return _ended(run, running.pop(pid), usage.ru_utime + usage.ru_stime)
        time.sleep(0.05)


def _ended(run: Path, one: _Running, cpu_seconds: float) -> Stage:
    folder, stage = run / one.stage.name, one.stage
    record = read_record(run, stage) or {}
    record["seconds"] += round(time.time() - one.started, 2)
    record["cpu_seconds"] += round(cpu_seconds, 2)
    record.setdefault("intervals", []).append([one.started, time.time()])
    record["finished"] = one.process.returncode == 0
    _write_record(folder, record)
    if not record["finished"]:
        lines = (folder / OUTPUT_NAME).read_text(encoding="utf-8", errors="replace").split("\n")
        said = "\n".join([line.rsplit("\r", 1)[-1] for line in lines if line.strip()][-_LAST_LINES:])
        raise UsageError(
            f"stage {stage.name} ended with code {one.process.returncode}; {folder / OUTPUT_NAME}:\n{said}"
        )
    return stage


def _stop(running: dict[int, _Running]) -> None:
    """End what still runs: programs write a checkpoint when they are asked to end."""
    for one in running.values():
        one.process.terminate()
    for one in running.values():
        one.process.wait()


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    with atomic_write(folder / RECORD_NAME, "w") as file:
        json.dump(record, file, indent=1)
