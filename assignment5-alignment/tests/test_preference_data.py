"""Preference files: which lines give a pair, and what is said of the others."""

import gzip
import json

import pytest

from cs336_alignment.preference.data import read_preferences
from cs336_basics.command_line import UsageError


def _hh(human, assistant, *more):
    turns = [human, assistant, *more]
    return "".join(f"\n\n{('Human', 'Assistant')[index % 2]}: {text}" for index, text in enumerate(turns))


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nWhy?\n\n### Response:\n"
)


def test_hh_conversations_of_one_turn_are_kept(tmp_path):
    rows = [
        {"chosen": _hh("Why?", "Because."), "rejected": _hh("Why?", "So.\n\nThat is it.")},
        {"chosen": _hh("Why?", "A.", "And?", "B."), "rejected": _hh("Why?", "A.", "And?", "C.")},
        {"chosen": _hh("Why?", "A."), "rejected": _hh("How?", "A.")},
        {"chosen": _hh("Why?", "A."), "rejected": _hh("Why?", "A.")},
        {"chosen": "\n\nHuman: Why?", "rejected": _hh("Why?", "A.")},
        {"chosen": _hh("Why?", ""), "rejected": _hh("Why?", "Human: no, a word.")},
    ]
    data = read_preferences(_write(tmp_path / "hh.jsonl.gz", rows))
    assert [(pair.prompt, pair.chosen, pair.rejected, pair.source) for pair in data.pairs] == [
        (ALPACA, "Because.", "So.\n\nThat is it.", "hh.jsonl.gz"),
        (ALPACA, "", "Human: no, a word.", "hh.jsonl.gz"),
    ]
    assert data.dropped == {
        "more than one turn": 1,
        "the human messages differ": 1,
        "both responses are the same": 1,
        "no human message and response": 1,
    }


def test_a_folder_tells_the_file_of_each_pair(tmp_path):
    row = {"chosen": _hh("Why?", "A."), "rejected": _hh("Why?", "B.")}
    for folder in ("helpful-base", "harmless-base"):
        _write(tmp_path / folder / "train.jsonl.gz", [row])
        _write(tmp_path / folder / "test.jsonl.gz", [row])
    (tmp_path / "README.md").write_text("not data")
    sources = [pair.source for pair in read_preferences(tmp_path).pairs]
    assert sources == ["harmless-base/train.jsonl.gz", "helpful-base/train.jsonl.gz"]
    _write(tmp_path / "other" / "b.jsonl", [row])
    _write(tmp_path / "other" / "a.jsonl", [row])
    assert [pair.source for pair in read_preferences(tmp_path / "other").pairs] == ["a.jsonl", "b.jsonl"]


def test_messages_are_conversations_and_own_lines_stand_as_they_are(tmp_path):
    def messages(*texts):
        return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]

    ours = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
    rows = [{"prompt": "Why?", "chosen": messages("Why?", "A. "), "rejected": messages("Why?", "B.")}, ours]
    path = _write(tmp_path / "mixed.jsonl", rows)
    conversation, own = read_preferences(path).pairs
    assert (conversation.prompt, conversation.chosen, conversation.rejected) == (ALPACA, "A.", "B.")
    assert (own.prompt, own.chosen, own.rejected) == ("1+1=", "2", "3")
    assert [pair.prompt for pair in read_preferences(path, template="none").pairs] == ["Why?", "1+1="]
    assert [pair.prompt for pair in read_preferences(path, template="alpaca_sft").pairs] == [
        ALPACA,
        ALPACA.replace("Why?", "1+1="),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{]\n", "jsonl:1: no JSON"),
        (b"\n[1]\n", "jsonl:2: a list instead of a JSON object"),
        (b'{"chosen": 1, "rejected": 2}\n', "jsonl:1 is no preference pair; allowed are HH conversations"),
        (b'{"text": "a"}\n', "jsonl:1 is no preference pair"),
        (b'{"prompt": "a", "chosen": "b", "rejected": "b"}\n', "no preference pair .1 dropped: both responses"),
        (b"", "holds no examples"),
        (b"\xff\xfe\n", "jsonl:1: no UTF-8"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, said):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_preferences(path)


@pytest.mark.parametrize("cut", [5, -20])
def test_a_damaged_gzip_file_is_refused(tmp_path, cut):
    whole = _write(tmp_path / "pairs.jsonl.gz", [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2)
    whole.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(UsageError, match="damaged archive"):
        read_preferences(whole)
    whole.write_bytes(b"plain text\n")
    with pytest.raises(UsageError, match="damaged archive"):
        read_preferences(whole)


def test_real_hh_file(shared_data):
    """The counts are a recount by the number of turn marks in the raw text."""
    path = shared_data / "alignment" / "hh_harmless-base_test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    single = [
        row
        for row in rows
        if all(
            row[side].count("\n\nHuman:") == row[side].count("\n\nAssistant:") == 1 for side in ("chosen", "rejected")
        )
    ]
    data = read_preferences(path)
    assert len(data.pairs) == len(single) == 661
    assert data.dropped == {"more than one turn": 1651}
    for pair, row in zip(data.pairs, single, strict=True):
        instruction = pair.prompt.split("### Instruction:\n")[1].removesuffix("\n\n### Response:\n")
        assert instruction in row["chosen"]
        assert row["chosen"].strip().endswith(pair.chosen)
        assert row["rejected"].strip().endswith(pair.rejected)
        assert pair.source == path.name
