"""Documents to token files: against Hugging Face's tokenizers, over kills, workers and compressions."""

import gzip
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from cs336_basics.bpe.train import train_bpe
from cs336_basics.command_line import UsageError
from cs336_basics.token_file import load_tokens, read_sidecar
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer
from cs336_data import document_encoding, tokenizer_choice
from cs336_data.document_encoding import DocumentEncoder, is_for_validation, well_formed
from cs336_data.executors import make_executor
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.inputs import find_units
from cs336_data.tokenize_command import main
from cs336_data.tokenizer_choice import load_tokenizer, train_on_documents
from cs336_data.tokens import TokenizeSettings, TokenizeShard, tokenize_documents

ODD = [
    "ordinary text, with <|endoftext|> spelled out in it",
    "naïve café, 東京は大きい都市です。 Привет мир!",
    "   white \t space \n\n\n at    odd places   ",
    "a lone surrogate \ud800 and a pair \ud83d\ude00",
    "",
    "it's we've 12345 #!?",
]


def _texts(seed, count):
    words = ["data", "the", "crawl", "of", "pages", "filter", "and", "tokens", "a", "model", "reads", "12", "it's"]
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words, size=random.integers(5, 60))) + "." for _ in range(count)]


def _write(path, texts):
    data = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "text.txt").write_text(END_OF_TEXT.join(_texts(99, 200) + ODD[:3] * 5))
    vocab, merges = train_bpe(folder / "text.txt", 330, [END_OF_TEXT], num_workers=1)
    Tokenizer(vocab, merges, [END_OF_TEXT]).save(folder)
    return folder


@pytest.fixture
def shards(tmp_path):
    """Three shards, each compressed in another way; together they hold all odd texts."""
    folder = tmp_path / "kept"
    folder.mkdir()
    _write(folder / "a.jsonl.zst", _texts(0, 40) + ODD[:3])
    _write(folder / "b.jsonl.gz", _texts(1, 25) + ODD[3:])
    _write(folder / "c.jsonl", _texts(2, 10))
    return folder


def _run(shards, tokenizer_dir, out, processes=None, **settings):
    """Tokenize in that many processes, or in a thread, which starts at once."""
    open_executor = partial(make_executor, "local", processes) if processes else partial(ThreadPoolExecutor, 1)
    with Engine(open_executor, processes or 1, 2, progress=False) as engine:
        return tokenize_documents(find_units([shards]), tokenizer_dir, out, engine, **settings)


def _reference(folder, prefix=""):
    """Hugging Face's byte-level BPE of the same files, to which <|endoftext|> is text like any other."""
    model = models.BPE.from_file(str(folder / f"{prefix}vocab.json"), str(folder / f"{prefix}merges.txt"))
    reference = tokenizers.Tokenizer(model)
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return reference


def _expected(shards, reference, eos, fraction):
    """The ids of either split: shard by shard in the order of their keys, <|endoftext|> after every document."""
    ids = {"train": [], "valid": []}
    opened = {".zst": lambda path: zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read(),
              ".gz": lambda path: gzip.decompress(path.read_bytes()), ".jsonl": Path.read_bytes}  # fmt: skip
    for unit in find_units([shards]):
        path = Path(unit.path)
        for line in opened[path.suffix](path).splitlines():
            text = json.loads(line)["text"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            split = "valid" if is_for_validation(text.encode(), fraction) else "train"
            ids[split] += [*reference.encode(text).ids, eos]
    return ids


def test_ids_equal_hugging_face(shards, tokenizer_dir, tmp_path):
    counts = _run(shards, tokenizer_dir, tmp_path / "out", valid_fraction=0.3)
    tokenizer = Tokenizer.from_directory(tokenizer_dir)
    expected = _expected(shards, _reference(tokenizer_dir), tokenizer.eos_id, 0.3)
    for split in ("train", "valid"):
        tokens = load_tokens(tmp_path / "out" / f"{split}.dat", tokenizer.vocab_size)
        assert tokens.dtype == np.uint16
        assert tokens.tolist() == expected[split]
        assert (tokens == tokenizer.eos_id).sum() == getattr(counts, split).num_documents
    assert counts.train.num_documents + counts.valid.num_documents == 75 + len(ODD)
    assert counts.train.num_malformed + counts.valid.num_malformed == 1
    assert not (tmp_path / "out" / "work").exists()


def test_ids_of_gpt2_equal_hugging_face(shards, shared_data, tmp_path):
    gpt2 = load_tokenizer("gpt2", tmp_path / "nothing_here")
    gpt2.save(tmp_path / "gpt2")
    _write(shards / "real.jsonl", (shared_data / "text/tinystories_val_cased.txt").read_text()[:40_000].split("\n\n"))
    _run(shards, tmp_path / "gpt2", tmp_path / "out", valid_fraction=0)
    expected = _expected(shards, _reference(shared_data / "tokenizer", "gpt2_"), 50256, 0)
    assert load_tokens(tmp_path / "out" / "train.dat", 50257).tolist() == expected["train"]
    assert not (tmp_path / "out" / "valid.dat").exists()
    assert read_sidecar(tmp_path / "out" / "train.dat")["vocab_size"] == 50257


def test_a_great_vocabulary_takes_uint32(shards, tokenizer_dir, tmp_path):
    small = Tokenizer.from_directory(tokenizer_dir)
    del small.vocab[small.eos_id]
    Tokenizer({**small.vocab, 70_000: END_OF_TEXT.encode()}, small.merges, [END_OF_TEXT]).save(tmp_path / "great")
    _run(shards, tmp_path / "great", tmp_path / "out", valid_fraction=0)
    tokens = load_tokens(tmp_path / "out" / "train.dat")
    assert tokens.dtype == np.uint32
    assert tokens.max() == 70_000


def test_compiled_and_plain_path_agree(tokenizer_dir, monkeypatch):
    tokenizer = Tokenizer.from_directory(tokenizer_dir)
    documents = [well_formed(text * 20)[0] for text in _texts(5, 20) + ODD]
    plain = [DocumentEncoder(tokenizer)(document).tolist() for document in documents]
    monkeypatch.setattr(document_encoding, "FAST_AFTER", -1)
    compiled = DocumentEncoder(tokenizer)
    assert [compiled(document).tolist() for document in documents] == plain
    assert compiled._ordinary._idle_encoders  # it was used


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.text(max_size=30), max_size=12))
def test_any_documents_come_back(tokenizer_dir, texts):
    tokenizer = Tokenizer.from_directory(tokenizer_dir)
    encode = DocumentEncoder(tokenizer)
    ids = [int(token) for text in texts for token in encode(well_formed(text)[0])]
    assert ids.count(tokenizer.eos_id) == len(texts)
    documents = [[]]
    for token in ids:
        documents[-1].append(token) if token != tokenizer.eos_id else documents.append([])
    assert [tokenizer.decode(document) for document in documents] == [*texts, ""]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.binary(max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_a_greater_share_holds_the_smaller_one(text, one, other):
    low, high = sorted((one, other))
    assert is_for_validation(text, low) <= is_for_validation(text, high)
    assert not is_for_validation(text, 0)
    assert is_for_validation(text, 1)


def test_the_share_is_met():
    chosen = [is_for_validation(f"document {number}".encode(), 0.1) for number in range(20_000)]
    assert abs(np.mean(chosen) - 0.1) < 0.01  # 4.7 standard deviations


def test_equal_documents_are_on_one_side(tokenizer_dir, tmp_path):
    texts = _texts(3, 60)
    (tmp_path / "kept").mkdir()
    _write(tmp_path / "kept" / "a.jsonl", texts)
    _write(tmp_path / "kept" / "b.jsonl", texts[::-1])
    _run(tmp_path / "kept", tokenizer_dir, tmp_path / "out", valid_fraction=0.5)
    tokenizer = Tokenizer.from_directory(tokenizer_dir)
    train, valid = (
        set(tokenizer.decode(load_tokens(tmp_path / "out" / name).tolist()).split(END_OF_TEXT)) - {""}
        for name in ("train.dat", "valid.dat")
    )
    assert train
    assert valid
    assert not train & valid
    assert train | valid == set(texts)


def test_workers_do_not_matter_and_a_second_run_does_nothing(shards, tokenizer_dir, tmp_path):
    _run(shards, tokenizer_dir, tmp_path / "one")
    counts = _run(shards, tokenizer_dir, tmp_path / "three", processes=3)
    before = {}
    for name in ("train.dat", "valid.dat", "train.dat.json", "valid.dat.json"):
        before[name] = (tmp_path / "three" / name).stat().st_mtime_ns
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
    assert _run(shards, tokenizer_dir, tmp_path / "three") == counts
    assert before == {name: (tmp_path / "three" / name).stat().st_mtime_ns for name in before}
    _write(shards / "d.jsonl", ["one more document"])
    more = _run(shards, tokenizer_dir, tmp_path / "three", valid_fraction=0.0)
    assert more.train.num_documents == counts.train.num_documents + counts.valid.num_documents + 1
    assert not (tmp_path / "three" / "valid.dat").exists()  # not what an earlier run had left


KILLED = """
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from cs336_data.executors import make_executor
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.inputs import find_units
from cs336_data.tokens import tokenize_documents
if __name__ == "__main__":
    with Engine(partial(make_executor, "local", 1), 1, 1, progress=False) as engine:
        tokenize_documents(find_units([sys.argv[1]]), Path(sys.argv[2]), Path(sys.argv[3]), engine, valid_fraction=0.3)
"""


def test_killed_and_resumed(shards, tokenizer_dir, tmp_path):
    """The last shard is a pipe that nobody writes to: until it is killed, the run cannot be done."""
    keys = {Path(unit.path): unit.key for unit in find_units([shards])}
    last = max(keys, key=keys.get)
    content = last.read_bytes()
    last.unlink()
    os.mkfifo(last)
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, program, shards, tokenizer_dir, out], cwd=Path(__file__).parents[1])
    markers = [out / "work" / f"{key}.done.json" for path, key in keys.items() if path != last]
    while not all(marker.exists() for marker in markers):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "train.dat").exists()
    last.unlink()
    last.write_bytes(content)
    made = {marker: marker.stat().st_mtime_ns for marker in markers}
    seen = {}

    class WatchingEngine(Engine):
        def run(self, title, function, units):
            seen["units"] = [unit.key for unit in units]
            seen["made"] = {marker: marker.stat().st_mtime_ns for marker in markers}
            return super().run(title, function, units)

    with WatchingEngine(partial(ThreadPoolExecutor, 1), 1, 1, progress=False) as engine:
        tokenize_documents(find_units([shards]), tokenizer_dir, out, engine, valid_fraction=0.3)
    assert seen == {"units": [keys[last]], "made": made}
    _run(shards, tokenizer_dir, tmp_path / "whole", valid_fraction=0.3)
    for name in ("train.dat", "valid.dat", "train.dat.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_memory_does_not_grow_with_the_shard(tokenizer_dir, tmp_path):
    texts = _texts(4, 50) * 120
    (tmp_path / "kept").mkdir()
    path = _write(tmp_path / "kept" / "a.jsonl", texts)
    (unit,) = find_units([path])
    work = TokenizeShard(tmp_path / "out", TokenizeSettings(tokenizer_dir, "any", 0.1))
    work(unit)  # what is loaded once
    tracemalloc.start()
    counts = work(unit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.train.num_bytes + counts.valid.num_bytes > 800_000
    assert peak < 200_000


def test_damaged_lines_are_counted(tokenizer_dir, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.jsonl").write_text('{"text": "good"}\n{"text": \n{"words": 1}\n{"text": "good too"}\n')
    counts = _run(tmp_path / "kept", tokenizer_dir, tmp_path / "out", valid_fraction=0)
    assert counts.train.num_documents == 2
    assert counts.bad.total() == 2


def test_a_tokenizer_of_the_documents(shards, tmp_path):
    units = find_units([shards])
    tokenizer = train_on_documents(units, tmp_path / "new", 300, 1_500, progress=False)
    assert tokenizer.vocab_size == 300
    assert tokenizer.eos_id is not None
    assert [path.name for path in tmp_path.iterdir() if path.name != "kept"] == ["new"]
    again = train_on_documents(units, tmp_path / "again", 300, 1_500, progress=False)
    assert again.merges == tokenizer.merges
    (tmp_path / "none").mkdir()
    empty = _write(tmp_path / "none" / "none.jsonl", [])
    with pytest.raises(UsageError, match="no documents"):
        train_on_documents(find_units([empty]), tmp_path / "empty", 300, 1_500, progress=False)


def test_command(shards, tmp_path, capsys):
    arguments = [str(shards), "--out", str(tmp_path / "tokens"), "--vocab_size", "300", "--workers", "1", "--quiet"]
    main(arguments)
    printed = capsys.readouterr().out
    assert "train.dat: " in printed
    assert "bytes per token" in printed
    tokenizer = Tokenizer.from_directory(tmp_path / "tokens" / "tokenizer")
    assert tokenizer.vocab_size == 300
    main([*arguments, "--tokenizer", str(tmp_path / "tokens" / "tokenizer"), "--out", str(tmp_path / "same")])
    assert (tmp_path / "same" / "train.dat").read_bytes() == (tmp_path / "tokens" / "train.dat").read_bytes()


def test_gpt2_is_downloaded_once_and_checked(tokenizer_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("CS336_DATA", raising=False)
    files = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}
    (tmp_path / "web").mkdir()
    for remote, local in files.items():
        (tmp_path / "web" / remote).write_bytes((tokenizer_dir / local).read_bytes())
    checksums = [sha256((tokenizer_dir / local).read_bytes()).hexdigest() for local in files.values()]
    sources = dict(zip(tokenizer_choice.GPT2_FILES, zip(files, checksums, strict=True), strict=True))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "web")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(UsageError, match=r"SHA-256 .* but 1961"):  # the real vocabulary's
            load_tokenizer("gpt2", tmp_path / "gpt2", url)
        monkeypatch.setattr(tokenizer_choice, "GPT2_SOURCES", sources)
        tokenizer = load_tokenizer("gpt2", tmp_path / "gpt2", url)
        server.shutdown()
    assert tokenizer.merges == Tokenizer.from_directory(tokenizer_dir).merges
    assert load_tokenizer("gpt2", tmp_path / "gpt2", url).vocab == tokenizer.vocab  # without the server
    assert load_tokenizer(str(tmp_path / "gpt2"), tmp_path).eos_id == tokenizer.eos_id


def test_bad_input_is_told_in_one_sentence(shards, tokenizer_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("CS336_DATA", raising=False)
    small = Tokenizer.from_directory(tokenizer_dir)
    del small.vocab[small.eos_id]
    Tokenizer(small.vocab, small.merges).save(tmp_path / "no_end")
    with pytest.raises(UsageError, match=r"no <\|endoftext\|>"):
        _run(shards, tmp_path / "no_end", tmp_path / "out")
    with pytest.raises(UsageError, match=r"share .* is 1.5; allowed are 0 to 1"):
        _run(shards, tokenizer_dir, tmp_path / "out", valid_fraction=1.5)
    with pytest.raises(UsageError, match="--download"):
        load_tokenizer("gpt2", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="nowhere"):
        load_tokenizer(str(tmp_path / "nowhere"), tmp_path)
    for arguments, message in (
        (["--workers", "0"], "--workers 0"), (["--vocab_size", "12"], "12 is too small"),
        (["--tokenizer_bytes", "0"], "--tokenizer_bytes 0"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            main([str(shards), "--out", str(tmp_path / "out"), "--quiet", *arguments])
    (shards / "notes.txt").write_text("no documents")
    with pytest.raises(UsageError, match=r"notes\.txt is no file of documents"):
        _run(shards, tokenizer_dir, tmp_path / "out")
