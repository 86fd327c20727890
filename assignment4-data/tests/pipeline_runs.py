"""Inputs for the pipeline's tests, and the command as a process that waits where a test wants it to wait.

A named pipe among the input files holds a run for as long as nobody writes to it: a test can kill the run, or a worker,
at a known point, and the run can never have finished before.
"""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from pathlib import Path

from cs336_data.pipeline.compressed_json import read_objects

FILTER_CC = Path(__file__).parent.parent / "scripts" / "filter_cc.py"
WORDS = ["the", "river", "of", "a", "town", "winds", "and", "bends", "to", "have", "with", "reeds", "where", "boats"]
PIPE_NAME = "held.jsonl"


class InProcess(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def article(seed: int, words: int = 60) -> str:
    """Prose that the Gopher rules keep."""
    chosen = random.Random(seed).choices(WORDS, k=words - 1)
    return " ".join([*chosen, f"number{seed}."])


def documents(first: int, count: int) -> list[dict]:
    """Documents of which every third is too short for the Gopher rules."""
    return [
        {"text": article(i, words=60 if i % 3 else 10), "url": f"https://example.org/{i}"}
        for i in range(first, first + count)
    ]


def json_lines(values: list[dict]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def write_inputs(folder: Path, files: int, documents_each: int = 6) -> list[Path]:
    """Files of documents; no document occurs twice."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part{i}.jsonl" for i in range(files)]
    for i, path in enumerate(paths):
        path.write_bytes(json_lines(documents(i * documents_each, documents_each)))
    return paths


def _hear_ctrl_c() -> None:
    """What a shell starts in the background ignores SIGINT, and so would the processes that tests start there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(inputs: Path, out: Path, *arguments: str, group: bool = False) -> subprocess.Popen:
    """The command as a process (with `group`, at the head of a process group of its own)."""
    command = [sys.executable, FILTER_CC, inputs, "--out", out, "--filters", "gopher", "--keep_rejected", "--quiet"]
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=group,
        preexec_fn=_hear_ctrl_c,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process that is to end by itself."""
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def wait_until(condition, what: str, process: subprocess.Popen | None = None, seconds: float = 240) -> None:
    """Wait for an event; the limit only ends a test that would hang."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        assert process is None or process.poll() is None, f"the run ended before {what}: {finish(process)}"
        time.sleep(0.02)


def open_pipe(pipe: Path) -> int | None:
    """A descriptor for writing, if the pipe has a reader by now; the reader waits until it is closed."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def hold(pipe: Path, process: subprocess.Popen) -> int:
    """Wait until the run reads from the pipe; it is held there until the descriptor returned is closed."""
    descriptors: list[int] = []

    def is_opened() -> bool:
        descriptor = open_pipe(pipe)
        descriptors.extend([] if descriptor is None else [descriptor])
        return bool(descriptors)

    wait_until(is_opened, "a reader of the pipe", process)
    return descriptors[0]


def release(pipe: Path, descriptor: int) -> None:
    """Let the pipe go after its reader was killed, and wait until the reader is gone."""
    os.close(descriptor)

    def is_gone() -> bool:
        left = open_pipe(pipe)
        if left is not None:
            os.close(left)
        return left is None

    wait_until(is_gone, "the reader of the pipe to end")


def filtered_units(out: Path) -> set[str]:
    """Names of the input files whose first stage is complete."""
    return {path.name.split("-")[0] for path in (out / "work" / "filtered").glob("*.done.json")}


def shards(out: Path) -> dict[str, bytes]:
    """The result, byte by byte."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in ("kept", "rejected")
        for path in sorted((out / folder).iterdir())
    }


def records(out: Path, folder: str = "kept") -> list[dict]:
    """The result's documents."""
    return [record for path in sorted((out / folder).iterdir()) for record in read_objects(path)]


def squeezed(table: str) -> str:
    """A Markdown table without the spaces that align its columns."""
    return "\n".join(" ".join(line.split()) for line in table.splitlines())
