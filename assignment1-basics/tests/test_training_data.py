"""Opening the tokens to train on, and making them from the default text."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from cs336_basics import training_data
from cs336_basics.bpe.vocab_files import fingerprint
from cs336_basics.command_line import UsageError
from cs336_basics.token_file import encode_file
from cs336_basics.tokenizer import Tokenizer
from cs336_basics.training_config import TrainConfig
from cs336_basics.training_data import make_default_data, open_training_data


def test_default_data_are_made_once_and_read_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = training_data.make_default_data
    calls = []

    def make_small(*args):
        calls.append(args)
        make(*args, vocab_size=400, train_bytes=60_000, valid_bytes=20_000)

    monkeypatch.setattr(training_data, "make_default_data", make_small)
    said = []
    data = open_training_data(TrainConfig(context_len=64), announce=said.append)
    assert data.vocab_size == 400
    assert any("making it from the default text" in sentence for sentence in said)
    tokenizer = Tokenizer.from_directory("tokenizer")
    assert tokenizer.decode(data.train.tolist()) == Path("data/stories-train.txt").read_text(encoding="utf-8")
    assert tokenizer.decode(data.valid.tolist()) == Path("data/stories-valid.txt").read_text(encoding="utf-8")
    again = open_training_data(TrainConfig(context_len=64), announce=said.append)
    assert len(calls) == 1
    assert np.array_equal(again.train, data.train)


def test_an_existing_tokenizer_is_used(tmp_path):
    tokenizer = Tokenizer({index: bytes([index]) for index in range(256)}, [], ["<|endoftext|>"])
    tokenizer.save(tmp_path / "tokenizer")
    make_default_data(tmp_path / "data", tmp_path / "tokenizer", lambda _: None, train_bytes=5000, valid_bytes=3000)
    data = open_training_data(TrainConfig(data_dir=str(tmp_path / "data")))
    assert data.vocab_size == 257
    assert json.loads((tmp_path / "data" / "train.dat.json").read_text())["vocab_size"] == 257


def test_a_vocabulary_smaller_than_the_data_s_is_refused_and_a_larger_one_is_not(tmp_path):
    tokenizer = Tokenizer({index: bytes([index]) for index in range(256)}, [], ["<|endoftext|>"])
    tokenizer.save(tmp_path / "tokenizer")
    make_default_data(tmp_path, tmp_path / "tokenizer", lambda _: None, train_bytes=5000, valid_bytes=3000)
    with pytest.raises(UsageError, match=r"vocab_size 100 is too small .* whose ids go up to 256"):
        open_training_data(TrainConfig(data_dir=str(tmp_path), vocab_size=100))
    assert open_training_data(TrainConfig(data_dir=str(tmp_path), vocab_size=320)).vocab_size == 320


def test_a_damaged_file_is_named(tmp_path):
    for name in ("train", "valid"):
        (tmp_path / f"{name}.dat").write_bytes(b"\x01\x00" * 1000)
    (tmp_path / "valid.dat").write_bytes(b"\x01")
    with pytest.raises(UsageError, match=r"valid\.dat is cut short"):
        open_training_data(TrainConfig(data_dir=str(tmp_path), vocab_size=10))


def test_files_of_different_tokenizers_are_refused(tmp_path):
    for name, special in (("train", "<|endoftext|>"), ("valid", "<|other|>")):
        tokenizer = Tokenizer({index: bytes([index]) for index in range(256)}, [], [special])
        (tmp_path / "text.txt").write_text("a text " * 100)
        encode_file(tokenizer, tmp_path / "text.txt", tmp_path / f"{name}.dat", progress=False)
    with pytest.raises(UsageError, match=r"train\.dat and .*valid\.dat were made by different tokenizers"):
        open_training_data(TrainConfig(data_dir=str(tmp_path)))


def test_the_data_know_their_tokenizer(tmp_path):
    tokenizer = Tokenizer({index: bytes([index]) for index in range(256)}, [], ["<|endoftext|>"])
    tokenizer.save(tmp_path / "tokenizer")
    make_default_data(tmp_path, tmp_path / "tokenizer", lambda _: None, train_bytes=5000, valid_bytes=3000)
    expected = fingerprint(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens)
    config = TrainConfig(data_dir=str(tmp_path), vocab_size=257)
    assert open_training_data(config).tokenizer_sha256 == expected
    for name in ("train", "valid"):
        (tmp_path / f"{name}.dat.json").unlink()
    assert open_training_data(config).tokenizer_sha256 is None


def test_a_text_too_small_for_the_vocabulary_is_a_note(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*cannot fill")
        make_default_data(
            tmp_path, tmp_path / "tokenizer", lambda _: None, vocab_size=2000, train_bytes=3000, valid_bytes=1000
        )
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "cannot fill a vocabulary of 2000 tokens" in notes[0]
