"""`scripts/train_bpe.py` and `scripts/tokenize_test.py`, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cs336_basics.bpe import train_command
from cs336_basics.command_line import UsageError
from cs336_basics.stories import write_stories
from cs336_basics.token_file import load_tokens
from cs336_basics.tokenize_command import main as tokenize
from cs336_basics.tokenizer import Tokenizer

SCRIPTS = Path(__file__).parent.parent / "scripts"
END = "<|endoftext|>"


def run(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ)


@pytest.fixture
def texts(tmp_path) -> tuple[Path, Path]:
    write_stories(tmp_path / "train.txt", 60_000, seed=1)
    write_stories(tmp_path / "valid.txt", 20_000, seed=2)
    return tmp_path / "train.txt", tmp_path / "valid.txt"


def test_from_text_to_token_files(tmp_path, texts):
    arguments = ["--input", "train.txt", "--vocab_size", "400", "--out", "out/tok"]
    arguments += ["--special_token", END, "--special_token", "<|pad|>", "--workers", "1", "--method", "plain"]
    trained = run(tmp_path, "train_bpe.py", *arguments)
    assert trained.returncode == 0, trained.stderr
    assert "400 tokens (142 merges)" in trained.stdout
    assert "longest tokens: '" in trained.stdout
    assert "peak memory" in trained.stdout
    tokenizer = Tokenizer.from_directory(tmp_path / "out" / "tok")
    assert tokenizer.special_tokens == [END, "<|pad|>"]
    assert sorted(path.name for path in (tmp_path / "out/tok").iterdir()) == ["bpe.json", "merges.txt", "vocab.json"]

    arguments = ["--tokenizer", "out/tok", "--train_text", "train.txt", "--valid_text", "valid.txt", "--out_dir", "ids"]
    tokenized = run(tmp_path, "tokenize_test.py", *arguments)
    assert tokenized.returncode == 0, tokenized.stderr
    assert "bytes per token" in tokenized.stdout
    for text, name in zip(texts, ("train.dat", "valid.dat"), strict=True):
        ids = load_tokens(tmp_path / "ids" / name, tokenizer.vocab_size)
        assert tokenizer.decode(ids) == text.read_bytes().decode()
        assert (ids == tokenizer.eos_id).sum() == text.read_text().count(END)
        assert str(len(ids)) in tokenized.stdout.replace(",", "")


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_without_arguments_a_tokenizer_is_trained_on_the_default_text(folder, texts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # The real default text is 10 MB; here its place is taken by a small one, downloaded as it were.
    (tmp_path / "data").mkdir()
    for text, name in zip(texts, ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"), strict=True):
        text.rename(tmp_path / "data" / name)
    with pytest.raises(UsageError, match="number of workers 0"):
        tokenize(["--workers", "0"])
    assert not (tmp_path / "tokenizer").exists(), "the number is that of the training too"
    if folder == "empty":
        (tmp_path / "tokenizer").mkdir()
    tokenize([])
    output = capsys.readouterr().out
    assert "There is no tokenizer in tokenizer yet: training one on data" in output
    assert "note: data/TinyStoriesV2-GPT4-train.txt cannot fill a vocabulary of 10000 tokens" in output
    first = (tmp_path / "data" / "train.dat").read_bytes()
    tokenize([])
    assert "training one" not in capsys.readouterr().out
    assert (tmp_path / "data" / "train.dat").read_bytes() == first
    assert Tokenizer.from_directory("tokenizer").eos_id == Tokenizer.from_directory("tokenizer").vocab_size - 1


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_bpe.py", ["--input", "train.txt", "--vocab_size", "256"], "vocabulary size 256 is too small"),
        ("train_bpe.py", ["--input", "nowhere.txt"], "there is no text file nowhere.txt"),
        ("train_bpe.py", ["--input", "train.txt", "--special_token", ""], "special token '' is not allowed"),
        ("train_bpe.py", ["--input", "train.txt", "--special_token", "a"], "special token 'a' is not allowed: it must"),
        ("train_bpe.py", ["--input", "train.txt", "--out", "valid.txt"], "valid.txt is a file"),
        ("train_bpe.py", ["--input", "train.txt", "--out", "valid.txt/tok"], "valid.txt is a file"),
        ("train_bpe.py", ["--input", "train.txt", "--workers", "0"], "number of workers 0 is not allowed"),
        (
            "tokenize_test.py",
            ["--tokenizer", "nowhere"],
            "there is no tokenizer in nowhere; `uv run python scripts/train",
        ),
        ("tokenize_test.py", ["--tokenizer", "."], "holds no tokenizer"),
    ],
)
def test_bad_requests_are_one_line_and_exit_code_2(tmp_path, texts, script, arguments, message):
    if script == "tokenize_test.py":
        arguments = [*arguments, "--train_text", "train.txt", "--valid_text", "valid.txt"]
    done = run(tmp_path, script, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.txt", "valid.txt"]


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("train_bpe.py", ["--input", "--vocab_size", "--special_token", "--out", "--workers", "--method", "10000"]),
        ("tokenize_test.py", ["--tokenizer", "--train_text", "--valid_text", "--out_dir", "--workers"]),
    ],
)
def test_help_lists_every_flag(tmp_path, script, flags):
    done = run(tmp_path, script, "--help")
    assert done.returncode == 0
    assert all(flag in done.stdout for flag in flags)


@pytest.mark.parametrize("missing", ["--train_text", "--valid_text"])
def test_both_texts_must_be_there_before_one_is_encoded(tmp_path, texts, missing):
    train_command.main(["--input", str(texts[0]), "--vocab_size", "300", "--out", str(tmp_path / "tok")])
    given = {"--train_text": str(texts[0]), "--valid_text": str(texts[1])} | {missing: "nowhere.txt"}
    arguments = ["--tokenizer", str(tmp_path / "tok"), "--out_dir", str(tmp_path / "ids")]
    with pytest.raises(UsageError, match=r"there is no text file nowhere\.txt"):
        tokenize([*arguments, *(part for flag in given.items() for part in flag)])
    assert not (tmp_path / "ids").exists()


def test_nothing_is_written_where_the_request_is_bad(tmp_path, texts):
    with pytest.raises(UsageError):
        train_command.main(["--input", str(texts[0]), "--vocab_size", "10", "--out", str(tmp_path / "tok")])
    assert not (tmp_path / "tok").exists()
