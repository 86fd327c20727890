"""Exact line deduplication against counting all lines in memory."""

import itertools
import os
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.dedup import exact_lines, input_files, repeated_lines
from cs336_data.dedup.exact_lines import exact_line_deduplication
from cs336_data.dedup.line_hashes import line_hashes, remove_lines, split_lines
from cs336_data.dedup.repeated_lines import RepeatedLines, repeated_in_partition, write_run
from cs336_data.executors import make_executor

LINES = st.lists(
    st.sampled_from([b"", b" ", b"a", b"b", b"a ", b"a\r", b"\xff\xfe", b"\0", b"c\x0bd", b"\xe2\x80\xa8"])
)
FILES = st.lists(st.tuples(LINES, st.booleans()), max_size=6)


class CountingExecutor(Executor):
    """Runs tasks at once; after `limit` of them it behaves as if the user had pressed Ctrl-C."""

    def __init__(self, limit: float = float("inf")) -> None:
        self.limit, self.count = limit, 0

    def submit(self, fn, /, *args, **kwargs):
        if self.count >= self.limit:
            raise KeyboardInterrupt
        self.count += 1
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def write_files(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines_with_ends(content: bytes) -> list[tuple[bytes, bytes]]:
    """Each line and its newline, found byte by byte."""
    lines, line = [], b""
    for byte in content:
        if byte == ord("\n"):
            lines.append((line, b"\n"))
            line = b""
        else:
            line += bytes([byte])
    return lines + ([(line, b"")] if line else [])


def brute_force(contents: dict[str, bytes]) -> tuple[dict[str, bytes], Counter]:
    """What must be written, and how often each line occurs."""
    counts = Counter(line for content in contents.values() for line, _ in lines_with_ends(content))
    expected = {
        name: b"".join(line + end for line, end in lines_with_ends(content) if counts[line] == 1)
        for name, content in contents.items()
    }
    return expected, counts


def numbered_lines(count: int) -> dict[str, bytes]:
    """Files of 100 lines, of which every tenth occurs in the next file as well."""
    return {
        f"{k:04d}": b"".join(
            b"line %d of the corpus\n" % (i - 95 * (i % 10 == 0)) for i in range(100 * k, 100 * k + 100)
        )
        for k in range(count)
    }


@pytest.fixture
def small_steps(monkeypatch):
    """Sizes at which small inputs take all paths of large ones."""
    monkeypatch.setattr(repeated_lines, "_HASHES_PER_PARTITION", 3)
    monkeypatch.setattr(exact_lines, "_HASHES_PER_RUN", 2)
    monkeypatch.setattr(input_files, "_BATCH_FILES", 2)
    monkeypatch.setattr(input_files, "_BLOCK_BYTES", 5)


@given(files=FILES, random=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_files_equal_brute_force(tmp_path_factory, files, random):
    contents = {f"file{k}": b"\n".join(lines) + b"\n" * ends for k, (lines, ends) in enumerate(files)}
    expected, counts = brute_force(contents)
    folder = tmp_path_factory.mktemp("exact")
    paths = write_files(folder / "in", contents)
    random.shuffle(paths)
    result = exact_line_deduplication(paths, folder / "out")
    assert read_files(folder / "out") == expected
    assert result == (counts.total(), sum(count for count in counts.values() if count > 1))


@pytest.mark.parametrize("file_count", [1, 4, 7])
def test_many_runs_blocks_and_partitions(tmp_path, small_steps, file_count):
    contents = {name: content[:400] for name, content in numbered_lines(file_count).items()}
    contents |= {"no newline": b"line 0 of the corpus\nlast", "empty": b"", "long": b"x" * 100 + b"\nlast"}
    exact_line_deduplication(write_files(tmp_path / "in", contents), tmp_path / "out")
    assert read_files(tmp_path / "out") == brute_force(contents)[0]


def test_executors_and_order_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "_BATCH_FILES", 3)
    monkeypatch.setattr(repeated_lines, "_HASHES_PER_PARTITION", 300)
    contents = numbered_lines(12)
    paths = write_files(tmp_path / "in", contents)
    with make_executor("local", workers=2) as processes:
        exact_line_deduplication(paths, tmp_path / "processes", executor=processes)
    with ThreadPoolExecutor(4) as threads:
        exact_line_deduplication(paths[::-1], tmp_path / "threads", executor=threads)
    expected = brute_force(contents)[0]
    assert read_files(tmp_path / "processes") == read_files(tmp_path / "threads") == expected


def test_last_line_without_newline_is_a_line_like_the_others(tmp_path):
    paths = write_files(tmp_path / "in", {"a": b"one\nsame", "b": b"same\ntwo\n", "c": b"three"})
    exact_line_deduplication(paths, tmp_path / "out")
    assert read_files(tmp_path / "out") == {"a": b"one\n", "b": b"two\n", "c": b"three"}


def test_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "_BATCH_FILES", 2)
    contents = numbered_lines(10)
    paths = write_files(tmp_path / "in", contents)
    whole = CountingExecutor()
    exact_line_deduplication(paths, tmp_path / "whole", executor=whole)
    for limit in range(0, whole.count, 4):
        first, second = CountingExecutor(limit), CountingExecutor()
        with pytest.raises(KeyboardInterrupt):
            exact_line_deduplication(paths, tmp_path / "out", executor=first)
        exact_line_deduplication(paths, tmp_path / "out", executor=second)
        assert first.count + second.count == whole.count
        assert read_files(tmp_path / "out") == brute_force(contents)[0]


def test_changed_input_begins_anew(tmp_path):
    paths = write_files(tmp_path / "in", {"a": b"one\ntwo\n", "b": b"two\n"})
    with pytest.raises(KeyboardInterrupt):
        exact_line_deduplication(paths, tmp_path / "out", executor=CountingExecutor(2))
    paths[1].write_bytes(b"three, and longer\n")
    exact_line_deduplication(paths, tmp_path / "out")
    assert read_files(tmp_path / "out") == {"a": b"one\ntwo\n", "b": b"three, and longer\n"}


KILLED = """
import sys, time
from concurrent.futures import Executor, Future
from cs336_data.dedup import exact_lines, input_files
input_files._BATCH_FILES = 2
class Blocking(Executor):
    count = 0
    def submit(self, fn, /, *args):
        if self.count == 3:
            print("three tasks are done", flush=True)
            time.sleep(3600)
        self.count += 1
        future = Future()
        future.set_result(fn(*args))
        return future
exact_lines.exact_line_deduplication(sys.argv[2:], sys.argv[1], executor=Blocking())
"""


def test_killed_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "_BATCH_FILES", 2)
    contents = numbered_lines(10)
    paths = write_files(tmp_path / "in", contents)
    whole, rest = CountingExecutor(), CountingExecutor()
    exact_line_deduplication(paths, tmp_path / "whole", executor=whole)
    command = [sys.executable, "-c", KILLED, tmp_path / "out", *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout.readline() == b"three tasks are done\n"
        os.kill(process.pid, signal.SIGKILL)
    exact_line_deduplication(paths, tmp_path / "out", executor=rest)
    assert rest.count == whole.count - 3
    assert read_files(tmp_path / "out") == brute_force(contents)[0]


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(repeated_lines, "_HASHES_PER_PARTITION", 1000)
    monkeypatch.setattr(exact_lines, "_HASHES_PER_RUN", 1000)
    monkeypatch.setattr(input_files, "_BLOCK_BYTES", 10_000)

    def peak(name: str, file_count: int) -> int:
        one_file = write_files(tmp_path / name, {"corpus": b"".join(numbered_lines(file_count).values())})
        tracemalloc.start()
        exact_line_deduplication(one_file, tmp_path / "out" / name)
        _, result = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return result

    peak("warm", 10)
    assert peak("large", 160) < 1.5 * peak("small", 40)


def test_inputs_that_cannot_be_written_apart_are_refused(tmp_path):
    first = write_files(tmp_path / "x", {"same": b"1"})
    second = write_files(tmp_path / "y", {"same": b"2"})
    with pytest.raises(UsageError, match=r"x/same and .*y/same have the same name, 'same'"):
        exact_line_deduplication(first + second, tmp_path / "out")
    with pytest.raises(UsageError, match="missing does not exist"):
        exact_line_deduplication([tmp_path / "missing"], tmp_path / "out")
    with pytest.raises(UsageError, match="lies in the output folder"):
        exact_line_deduplication(first, tmp_path / "x")
    assert not (tmp_path / "out").exists()
    assert first[0].read_bytes() == b"1"


@given(
    arrays=st.lists(st.lists(st.binary(min_size=1, max_size=1)), min_size=1, max_size=4), partitions=st.integers(1, 5)
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_partitions_together_are_the_repeated_hashes(tmp_path_factory, arrays, partitions):
    folder = tmp_path_factory.mktemp("runs")
    hashes = [line_hashes(b"\n".join(lines) + b"\n") for lines in arrays]
    runs = [folder / f"{k}.npy" for k in range(len(arrays))]
    for run, array in zip(runs, hashes, strict=True):
        write_run(run, array)
    parts = [repeated_in_partition(runs, k, partitions) for k in range(partitions)]
    counts = Counter(itertools.chain.from_iterable(array.tolist() for array in hashes))
    expected = sorted(value for value, count in counts.items() if count > 1)
    assert np.concatenate(parts).tolist() == expected == RepeatedLines.of(hashes).hashes.tolist()


@given(st.text(alphabet="ab\n\r\u2028é"), st.text(alphabet="ab\n\r\u2028é"))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_removal_from_text_keeps_the_rest_and_says_where(text, other):
    gone = RepeatedLines(np.unique(line_hashes(other)))
    result = remove_lines(text, gone)
    lines = split_lines(text)
    removed = [line for line in lines if line in split_lines(other)]
    assert [text[start:end] for start, end in result.removed] == removed
    assert split_lines(result.text) == [line for line in lines if line not in split_lines(other)]
    assert remove_lines(text.encode(), gone).text == result.text.encode()
