"""`cs336 quickstart`: its treatment of texts and folders, its plan, and whole runs in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336 import cli
from cs336.quickstart.steps import Workshop
from cs336.quickstart.telling import Clock, Teller
from cs336.quickstart.text import (
    LEAST_BYTES,
    LONGEST_PROMPT,
    STORY_BEGINNINGS,
    _prompts,
    split_text,
    write_default_text,
)
from cs336_basics.command_line import UsageError
from cs336_basics.run_log import read_metrics
from cs336_basics.stories import END_OF_TEXT, generate_stories

PROSE = "It was a fine day. The cat sat on the mat and looked at the birds.\nThey sang.\n\n" * 400


def quickstart(*arguments, cwd=None):
    command = [sys.executable, "-c", "from cs336.cli import main; main()", "quickstart", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # so small a model is slower with two threads
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    )


# ---------------------------------------------------------------- the text


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300), min_size=1, max_size=12),
    st.sampled_from([END_OF_TEXT, "\n\n", "\n", " ", ""]),
)
def test_the_parts_are_the_whole_text(tmp_path_factory, pieces, mark):
    folder = tmp_path_factory.mktemp("split")
    text = mark.join(pieces)
    text += "x" * max(0, LEAST_BYTES - len(text.encode()))
    (folder / "mine.txt").write_bytes(text.encode())
    texts = split_text(folder / "mine.txt", folder / "parts", minutes=4)
    train, valid = texts.train.read_bytes().decode(), texts.valid.read_bytes().decode()
    assert train + valid == text.removeprefix("\ufeff")
    assert train
    assert valid
    assert (texts.train_bytes, texts.valid_bytes) == (len(train.encode()), len(valid.encode()))


@pytest.mark.parametrize("mark", [f"\n{END_OF_TEXT}\n", "\n\n", "\n", " "])
def test_the_cut_is_at_a_border(tmp_path, mark):
    pieces = [f"piece{number:03}" * 3 for number in range(300)]
    (tmp_path / "mine.txt").write_text(mark.join(pieces), newline="")
    texts = split_text(tmp_path / "mine.txt", tmp_path, minutes=4)
    assert texts.train.read_text().strip().removesuffix(END_OF_TEXT).strip().endswith(tuple(pieces))
    assert texts.valid.read_text().strip().startswith(tuple(pieces))
    assert 0.85 < texts.train_bytes / (texts.train_bytes + texts.valid_bytes) < 0.95


def test_byte_order_mark_and_line_ends(tmp_path):
    content = ("Line one.\r\nLine two.\r\n" * 200).encode()
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbf" + content)
    texts = split_text(tmp_path / "mine.txt", tmp_path, minutes=4)
    assert texts.train.read_bytes() + texts.valid.read_bytes() == content


def test_of_a_large_file_only_the_beginning_is_used(tmp_path):
    (tmp_path / "mine.txt").write_text("é" * 3_000_001)
    texts = split_text(tmp_path / "mine.txt", tmp_path, minutes=0.5)
    assert 1_990_000 < texts.train_bytes + texts.valid_bytes <= 2_000_000
    assert "the first 2 MB are used" in texts.note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes; a text to learn from needs at least 2,000"),
        (b"too short", "has 9 bytes"),
        (b"a" * 5_000 + b"\xff" + b"a" * 5_000, "is not UTF-8 text: byte 5,000 is 0xff"),
        (b"a" * 5_000 + "é".encode()[:1], "is not UTF-8 text"),
    ],
)
def test_a_bad_text_is_refused(tmp_path, content, message):
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(message)):
        split_text(tmp_path / "mine.txt", tmp_path / "parts", minutes=4)
    assert not (tmp_path / "parts").exists()


def test_prompts_are_the_first_words_of_passages():
    passages = [f"Passage {number} begins like this and then it goes on for some time." for number in range(6)]
    words = ("Passage 0 begins like", "Passage 2 begins like", "Passage 4 begins like")
    assert _prompts("\n\n".join(passages)) == _prompts(f"\n{END_OF_TEXT}\n".join(passages)) == words


@pytest.mark.parametrize("mark", ["", "\n", "\n\n", END_OF_TEXT])
def test_prompts_are_short_where_words_have_no_spaces(tmp_path, mark):
    paragraph = "很久很久以前，森林里住着一只小狐狸，它每天都在河边看着月亮，想着远方的朋友。" * 3
    (tmp_path / "mine.txt").write_text(mark.join([paragraph] * 60))
    texts = split_text(tmp_path / "mine.txt", tmp_path / "parts", minutes=4)
    assert texts.prompts
    for prompt in texts.prompts:
        assert 0 < len(prompt) <= LONGEST_PROMPT
        assert prompt in paragraph + paragraph


def test_default_text_follows_the_seed(tmp_path):
    first = write_default_text(tmp_path / "a", 0.1, seed=1)
    again = write_default_text(tmp_path / "b", 0.1, seed=1)
    other = write_default_text(tmp_path / "c", 0.1, seed=2)
    assert first.train.read_bytes() == again.train.read_bytes() != other.train.read_bytes()
    stories = set(first.train.read_text().split(END_OF_TEXT))
    assert not (stories - {"\n"}) & set(first.valid.read_text().split(END_OF_TEXT))
    assert next(generate_stories(2)) in first.train.read_text()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "--minutes 0 is not possible"),
        (["--minutes", "nan"], "--minutes nan is not possible"),
        (["--seed", "-1"], "--seed -1 is negative"),
        (["--text", "nowhere.txt"], "--text nowhere.txt is not a file"),
        (["--text", "short.txt"], "short.txt has 5 bytes"),
        (["--device", "abacus"], "device 'abacus' is unknown"),
        (["--out", "taken"], "--out taken holds other files"),
        (["--out", "short.txt"], "--out short.txt is a file"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda argv: cli.app(argv, prog_name="cs336"), ["quickstart", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")
    assert (tmp_path / "taken" / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "abacus"], "device 'abacus' is unknown"),
        (["--text", "latin1.txt"], "latin1.txt is not UTF-8 text: byte 3 is 0xe9"),
        (["--text", "short.txt"], "short.txt has 5 bytes"),
        (["--text", "nowhere.txt"], "--text nowhere.txt is not a file"),
        (["--text", "made/text/train.txt"], "--text made/text/train.txt lies in --out made, where older files are"),
        (["--text", "made/mine.txt"], "--text made/mine.txt lies in --out made"),
    ],
)
def test_bad_input_costs_no_earlier_result(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin1.txt").write_bytes(("caf\xe9 " * 1000).encode("latin-1"))
    (tmp_path / "short.txt").write_text("short")
    made = {
        "quickstart.json": json.dumps({"minutes": 4.0, "text": None, "device": "auto", "seed": 0, "done": True}),
        "report.html": "<html>", "plan.json": "{}", "text/train.txt": PROSE, "mine.txt": PROSE, "run/metrics.jsonl": "",
    }  # fmt: skip
    for name, content in made.items():
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_text(content)
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda argv: cli.app(argv, prog_name="cs336"), ["quickstart", "--out", "made", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")
    assert {
        str(path.relative_to(tmp_path / "made")): path.read_text() for path in (tmp_path / "made").rglob("*.*")
    } == made


def test_half_a_saved_tokenizer_is_trained_again(tmp_path):
    """A run that was killed between the tokenizer's files leaves a folder without the last of them."""
    workshop = Workshop(tmp_path, 0.4, "cpu", 0, Clock(0.4), Teller(), resumed=True)
    workshop.texts = write_default_text(tmp_path / "text", 0.02, seed=0)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text("{")
    workshop.train_tokenizer()
    assert workshop.tokenizer.vocab_size > 257
    saved = {path: path.stat().st_mtime_ns for path in (tmp_path / "tokenizer").iterdir()}
    workshop.train_tokenizer()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tokenizer").iterdir()} == saved


# ---------------------------------------------------------------- whole runs


def whole_run(folder, *arguments):
    """Run the quickstart to its end in `folder`; return what it printed and its page, after checking both."""
    with quickstart("--minutes", "0.4", *arguments, cwd=folder) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert re.findall(r"^(\d)\. ", output, re.MULTILINE) == list("123456")
    assert str((folder / "quickstart" / "report.html").resolve()) == output.splitlines()[-1]
    assert [path.name for path in folder.iterdir()] == ["quickstart"]
    assert json.loads((folder / "quickstart" / "quickstart.json").read_text())["done"] is True
    page = unescape((folder / "quickstart" / "report.html").read_text())
    assert "data:image/png;base64" in page
    # How much a model writes after so short a training depends on how busy the machine is; that it writes does not.
    assert len(re.findall(r"<pre>\s*\w[^<]*</pre>", samples(page))) == 3
    losses = validation_losses(folder / "quickstart")
    assert losses[-1] < losses[0]
    return output, page


def samples(page):
    return re.search(r"<h2>What the model writes</h2>(.*?)<h2>", page, re.DOTALL)[1]


def validation_losses(out):
    return [entry["val_loss"] for entry in read_metrics(out / "run" / "metrics.jsonl") if "val_loss" in entry]


@pytest.mark.slow
def test_a_run_without_any_text(tmp_path):
    output, page = whole_run(tmp_path)
    assert "generated stories" in output
    assert all(beginning in samples(page) for beginning in STORY_BEGINNINGS)


@pytest.mark.slow
def test_a_run_on_tinystories(tmp_path, shared_data):
    text = shared_data / "text" / "tinystories_val_cased.txt"
    output, _ = whole_run(tmp_path, "--text", text)
    assert "0.79 MB" in output


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path):
    (tmp_path / "mine.txt").write_text(PROSE)
    arguments = ["--text", tmp_path / "mine.txt", "--minutes", "2", "--out", tmp_path / "made", "--seed", "3"]
    log = tmp_path / "made" / "run" / "metrics.jsonl"
    with quickstart(*arguments) as process:
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert output.splitlines()[-1] == "Interrupted. The same command goes on from here."
    before = read_metrics(log)
    assert before[-1]["step"] < json.loads((tmp_path / "made" / "plan.json").read_text())["train_steps"]
    with quickstart(*arguments) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "going on with it" in output
    assert read_metrics(log)[: len(before)] == before  # the seconds in it show that nothing was done again
    assert (tmp_path / "made" / "report.html").is_file()
    losses = validation_losses(tmp_path / "made")
    assert losses[-1] < 0.7 * losses[0]
    assert "The cat sat on the mat" in output  # so little text is soon known by heart
