"""Token files: written by any number of workers, resumed after a kill, and checked when read back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cs336_basics import token_file
from cs336_basics.bpe import parallel_encoding, train_bpe
from cs336_basics.command_line import UsageError
from cs336_basics.token_file import encode_file, load_tokens, read_sidecar, sidecar_path
from cs336_basics.tokenizer import Tokenizer

END = "<|endoftext|>"
TEXT = f"It's a café’s  tale, 12½ times:\r\n\n\u3000the end. 中文。字{END}{END} the end <|endof\n" * 60
MALFORMED = TEXT.encode() + b"bad \xff\xfe \xe2\x82 ends \xe2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "text").write_bytes(MALFORMED)
    (folder / "good").write_text(TEXT, newline="")
    Tokenizer(*train_bpe(folder / "good", 300, [END]), [END]).save(folder)
    return folder


@pytest.fixture
def tokenizer(folder) -> Tokenizer:
    return Tokenizer.from_directory(folder)


@pytest.mark.parametrize("path", ["plain", "plain processes", "fast threads"])
def test_every_way_gives_the_ids_of_the_whole_text(tokenizer, folder, tmp_path, monkeypatch, path):
    if path != "plain":
        monkeypatch.setattr(parallel_encoding, "SMALL", 0)
        tokenizer.has_fast_path = path == "fast threads"
    expected = tokenizer.encode(MALFORMED.decode(errors="replace"))
    for block_size in (50, 1000) if path == "plain" else (1000,):
        out = tmp_path / f"{block_size}.dat"
        info = encode_file(tokenizer, folder / "text", out, num_workers=3, progress=False, block_size=block_size)
        tokens = load_tokens(out, tokenizer.vocab_size)
        assert tokens.tolist() == expected
        assert tokens.dtype == np.uint16
        assert (info.num_tokens, info.num_bytes, info.num_malformed) == (len(expected), len(MALFORMED), 4)
        assert info.max_id == max(expected)
        assert info.bytes_per_token == pytest.approx(len(MALFORMED) / len(expected))
        assert read_sidecar(out)["vocab_size"] == tokenizer.vocab_size
        assert sorted(file.name for file in tmp_path.glob(f"*{block_size}*")) == [out.name, out.name + ".json"]


@pytest.mark.parametrize("path", ["serial", "processes", "threads"])
def test_batches_go_the_same_ways(tokenizer, monkeypatch, path):
    monkeypatch.setattr(parallel_encoding, "SMALL", 1 << 20 if path == "serial" else 0)
    length = 300 if path == "threads" else 30
    texts = [TEXT[start : start + length] for start in range(0, len(TEXT) - length, 17)]
    assert tokenizer.encode_batch(texts, num_workers=2) == [list(tokenizer.encode_plain(text)) for text in texts]


def test_batch_workers_must_be_positive(tokenizer):
    with pytest.raises(UsageError, match="number of workers 0"):
        tokenizer.encode_batch(["a"], num_workers=0)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_the_width_follows_the_vocabulary(tmp_path, vocab_size, dtype):
    vocab = {byte: bytes([byte]) for byte in range(256)} | {vocab_size - 1: b"<last>"}
    (tmp_path / "text").write_text("ab<last>")
    encode_file(Tokenizer(vocab, [], ["<last>"]), tmp_path / "text", tmp_path / "out.dat", progress=False)
    tokens = load_tokens(tmp_path / "out.dat", vocab_size)
    assert tokens.dtype == dtype
    assert tokens.tolist() == [97, 98, vocab_size - 1]


def test_an_empty_text_makes_an_empty_file_that_is_refused_on_reading(tokenizer, tmp_path):
    (tmp_path / "text").write_bytes(b"")
    info = encode_file(tokenizer, tmp_path / "text", tmp_path / "out.dat", progress=False)
    assert (info.num_tokens, info.max_id) == (0, -1)
    with pytest.raises(UsageError, match="holds no tokens"):
        load_tokens(tmp_path / "out.dat")


def test_bad_requests(tokenizer, folder, tmp_path):
    with pytest.raises(UsageError, match=r"no text file .*nowhere"):
        encode_file(tokenizer, tmp_path / "nowhere", tmp_path / "out.dat")
    with pytest.raises(UsageError, match="number of workers 0"):
        encode_file(tokenizer, folder / "text", tmp_path / "out.dat", num_workers=0)
    assert list(tmp_path.iterdir()) == []


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_a_file_without_a_sidecar_is_uint16(tmp_path):
    np.arange(1000, dtype="<u2").tofile(tmp_path / "flat.dat")
    assert load_tokens(tmp_path / "flat.dat").tolist() == list(range(1000))
    assert load_tokens(tmp_path / "flat.dat", 1000).tolist() == list(range(1000))
    assert read_sidecar(tmp_path / "flat.dat") is None


def test_every_id_is_checked_without_a_sidecar(tmp_path, monkeypatch):
    monkeypatch.setattr(token_file, "_CHECKED_AT_ONCE", 7)
    for place in (0, 6, 7, 49):
        ids = np.zeros(50, dtype="<u2")
        ids[place] = 500
        ids.tofile(tmp_path / "flat.dat")
        with pytest.raises(UsageError, match="has token id 500, but the vocabulary has only 500 tokens"):
            load_tokens(tmp_path / "flat.dat", 500)
        assert load_tokens(tmp_path / "flat.dat", 501)[place] == 500


def test_files_that_are_refused(tokenizer, folder, tmp_path):
    out = tmp_path / "out.dat"
    encode_file(tokenizer, folder / "text", out, progress=False)
    whole, sidecar = out.read_bytes(), sidecar_path(out).read_text()

    def refused(message: str, vocab_size: int | None = None) -> None:
        with pytest.raises(UsageError, match=message):
            load_tokens(out, vocab_size)
        out.write_bytes(whole)
        sidecar_path(out).write_text(sidecar)

    refused("token id 299, but the vocabulary has only 299", 299)
    out.write_bytes(whole[:-1])
    refused("is cut short: .* no multiple of 2")
    out.write_bytes(whole[:-2])
    refused("is not the file its sidecar describes")
    out.write_bytes(whole + whole)
    refused("is not the file its sidecar describes")
    sidecar_path(out).write_text(sidecar[:30])
    refused("does not describe a token file")
    sidecar_path(out).write_text("[]")
    refused("does not describe a token file")
    sidecar_path(out).write_text(sidecar.replace("uint16", "float32"))
    refused("ids are 'float32': it must be uint16 or uint32")
    sidecar_path(out).write_text(sidecar.replace("uint16", "uint32"))
    refused("not the file its sidecar|no multiple of 4")
    out.unlink()
    with pytest.raises(UsageError, match="there is no token file"):
        load_tokens(out)


def test_the_map_is_read_only(tokenizer, folder, tmp_path):
    encode_file(tokenizer, folder / "text", tmp_path / "out.dat", progress=False)
    with pytest.raises(ValueError, match="read-only"):
        load_tokens(tmp_path / "out.dat")[0] = 1


# ---- resuming --------------------------------------------------------------------------------------------------------

# Records after every block and encodes slowly, so that a kill lands within a block, within a record or between them.
# After a few blocks it waits to be killed: no run reaches the end, however late the kill comes.
SLOW_PROGRAM = """
import itertools, sys, time
from cs336_basics import token_file
from cs336_basics.tokenizer import Tokenizer

blocks = itertools.count()

class SlowTokenizer(Tokenizer):
    def encode_plain(self, text):
        time.sleep(0.004 if next(blocks) < 16 else 600)
        return super().encode_plain(text)

token_file.SECONDS_BETWEEN_RECORDS = 0
directory, text, out = sys.argv[1:]
tokenizer = SlowTokenizer.from_directory(directory)
print("started", flush=True)
token_file.encode_file(tokenizer, text, out, progress=False, block_size=60)
"""


def test_killed_runs_resume_to_the_same_bytes(tokenizer, folder, tmp_path):
    whole, out = tmp_path / "whole.dat", tmp_path / "out.dat"
    encode_file(tokenizer, folder / "text", whole, progress=False)
    record = tmp_path / ".out.dat.progress.json"
    done_before = [0]
    for milliseconds in (40, 133, 17, 61, 99):
        command = [sys.executable, "-c", SLOW_PROGRAM, str(folder), str(folder / "text"), str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"started\n"
        time.sleep(milliseconds / 1000)
        while not record.exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done_before.append(json.loads(record.read_text())["done"]["num_bytes"])
        process.stdout.close()
    assert done_before == sorted(done_before)
    assert 0 < done_before[-1] < len(MALFORMED)
    assert not out.exists()
    with pytest.MonkeyPatch.context() as patch:
        blocks = []
        encode_plain = parallel_encoding._encode_plain
        patch.setattr(parallel_encoding, "_encode_plain", lambda t, b: blocks.append(b) or encode_plain(t, b))
        encode_file(tokenizer, folder / "text", out, progress=False)
    assert sum(map(len, blocks)) == len(MALFORMED) - done_before[-1], "only the rest was encoded"
    assert out.read_bytes() == whole.read_bytes()
    assert sidecar_path(out).read_text() == sidecar_path(whole).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.dat",
        "out.dat.json",
        "whole.dat",
        "whole.dat.json",
    ]


class Interrupted(Exception):
    """Stands for a kill at a chosen step."""


@pytest.fixture
def interrupted(tokenizer, folder, tmp_path, monkeypatch):
    """A run that stopped in the middle: `out.dat`'s partial file and record."""
    text = tmp_path / "text"
    text.write_bytes(MALFORMED)
    monkeypatch.setattr(token_file, "SECONDS_BETWEEN_RECORDS", 0)
    encode_plain, calls = parallel_encoding._encode_plain, iter(range(10))

    def stop_in_the_middle(tokenizer, block):
        if next(calls) == 5:
            raise Interrupted
        return encode_plain(tokenizer, block)

    with monkeypatch.context() as patch:
        patch.setattr(parallel_encoding, "_encode_plain", stop_in_the_middle)
        with pytest.raises(Interrupted):
            encode_file(tokenizer, text, tmp_path / "out.dat", progress=False, block_size=500)
    record = json.loads((tmp_path / ".out.dat.progress.json").read_text())
    assert record["done"]["num_bytes"] > 1000
    return text, tmp_path / "out.dat"


def check_result(tokenizer, text: Path, out: Path) -> None:
    encode_file(tokenizer, text, out, progress=False)
    assert load_tokens(out).tolist() == tokenizer.encode(text.read_bytes().decode(errors="replace"))


def test_what_was_written_after_the_record_is_cut_off(tokenizer, interrupted):
    text, out = interrupted
    with open(out.with_name(".out.dat.partial"), "ab") as partial:
        partial.write(b"half a tok")
    check_result(tokenizer, text, out)


def test_another_text_starts_anew(tokenizer, interrupted):
    text, out = interrupted
    text.write_bytes(b"other words " * 500)
    check_result(tokenizer, text, out)


def test_another_tokenizer_starts_anew(tokenizer, interrupted):
    text, out = interrupted
    check_result(Tokenizer(tokenizer.vocab, tokenizer.merges[:10], [END]), text, out)


@pytest.mark.parametrize(
    "damage", ["no partial file", "short partial file", "damaged record", "record of another kind"]
)
def test_a_damaged_unfinished_run_starts_anew(tokenizer, interrupted, damage):
    text, out = interrupted
    partial, record = out.with_name(".out.dat.partial"), out.with_name(".out.dat.progress.json")
    if damage == "no partial file":
        partial.unlink()
    elif damage == "short partial file":
        os.truncate(partial, 10)
    else:
        record.write_text('{"done": ' if damage == "damaged record" else "[]")
    check_result(tokenizer, text, out)


def test_without_resume_it_starts_anew(tokenizer, interrupted):
    text, out = interrupted
    partial = out.with_name(".out.dat.partial")
    partial.write_bytes(b"\xff" * partial.stat().st_size)  # what a resumed run would keep
    encode_file(tokenizer, text, out, progress=False, resume=False)
    assert load_tokens(out).tolist() == tokenizer.encode(MALFORMED.decode(errors="replace"))


@pytest.mark.parametrize("step", ["os.replace", "unlink"])
def test_a_kill_in_the_last_steps_leaves_a_good_file_or_none(tokenizer, folder, tmp_path, monkeypatch, step):
    out = tmp_path / "out.dat"

    def kill(source, *_args, **_keywords):
        if Path(source).name == (".out.dat.partial" if step == "os.replace" else ".out.dat.progress.json"):
            raise Interrupted
        return real(source, *_args, **_keywords)

    with monkeypatch.context() as patch:
        if step == "os.replace":
            real = os.replace
            patch.setattr(token_file.os, "replace", kill)
        else:
            real = Path.unlink
            patch.setattr(Path, "unlink", kill)
        with pytest.raises(Interrupted):
            encode_file(tokenizer, folder / "text", out, progress=False)
    if out.exists():
        assert load_tokens(out, tokenizer.vocab_size).size > 0
    check_result(tokenizer, folder / "text", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.dat", "out.dat.json"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc says how much memory a process has held")
@pytest.mark.parametrize(
    ("small", "megabytes", "growth"), [(1 << 30, (1, 10), 3_000), (0, (20, 100), 12_000)], ids=["plain", "fast"]
)
def test_a_large_file_is_encoded_in_constant_memory(folder, tmp_path, small, megabytes, growth):
    program = (
        "import sys; from cs336_basics.bpe import parallel_encoding\n"
        "from cs336_basics.token_file import encode_file; from cs336_basics.tokenizer import Tokenizer\n"
        f"parallel_encoding.SMALL = {small}\n"
        "tokenizer = Tokenizer.from_directory(sys.argv[1])\n"
        "encode_file(tokenizer, sys.argv[2], sys.argv[3], num_workers=1, progress=False, block_size=1 << 18)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "large"), str(tmp_path / "out.dat")]
    peaks = []
    for size in megabytes:
        (tmp_path / "large").write_bytes(TEXT.encode() * (size * 1_000_000 // len(TEXT.encode())))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))  # KiB; ru_maxrss would count the memory of pytest, which started the process
    assert peaks[1] - peaks[0] < growth
