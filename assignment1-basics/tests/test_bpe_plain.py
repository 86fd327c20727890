"""Plain BPE training against an oracle that recounts every pair before every merge."""

import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.bpe import plain_train
from cs336_basics.bpe.plain_train import count_pretokens, merge_pairs, train_bpe_plain
from cs336_basics.bpe.train import train_bpe
from cs336_basics.command_line import UsageError

from .bpe_texts import AWKWARD, END, oracle_merges, regex_words


def check(path: Path, data: bytes, num_merges: int, special_tokens: list[str]) -> None:
    path.write_bytes(data)
    vocab_size = 256 + num_merges + len(special_tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random texts are often too short for the vocabulary, or malformed
        vocab, merges = train_bpe_plain(path, vocab_size, special_tokens)
    assert merges == oracle_merges(regex_words(data, special_tokens), num_merges)
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [left + right for left, right in merges] + [token.encode() for token in special_tokens]
    assert vocab == dict(enumerate(tokens))


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_texts(tmp_path, name):
    check(tmp_path / "text", AWKWARD[name], 60, [END])


OVERLAPPING = ["<|a|>", "<|a|><|a|>", "|><|", "a b", " ", "\r\n"]


@pytest.mark.parametrize("special_tokens", [[], OVERLAPPING[:2], OVERLAPPING[:4], OVERLAPPING, OVERLAPPING[::-1]])
def test_overlapping_special_tokens(tmp_path, special_tokens):
    data = b"x<|a|><|a|><|a|>y a b a b<|a|> a b\r\n<|a|><| a|> a  b |><|a|>" * 3
    check(tmp_path / "text", data, 40, special_tokens)


@pytest.mark.parametrize("special_tokens", [["ab", "abcd"], ["abcd", "ab"], ["bc", "abc", "abcde"]])
def test_of_special_tokens_that_start_alike_the_longest_is_the_border(tmp_path, special_tokens):
    check(tmp_path / "text", b"abcdef abcd abx abcde xabcdefg abcabcd ab" * 3, 30, special_tokens)


fragments = st.sampled_from(["a", "b", "ab", "aa", " ", "  ", "\n", "'s", "é", "1", "<|a|>", "a b", "\0", "中"])
random_texts = st.lists(fragments, max_size=60).map("".join).map(str.encode) | st.binary(max_size=60)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(data=random_texts, num_merges=st.integers(0, 25), specials=st.lists(st.sampled_from(OVERLAPPING), unique=True))
def test_random_texts(tmp_path_factory, data, num_merges, specials):
    check(tmp_path_factory.getbasetemp() / "random", data, num_merges, specials)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    words=st.dictionaries(st.text("abc", min_size=1, max_size=20).map(str.encode), st.integers(1, 9), max_size=8),
)
def test_random_words_with_many_ties(words):
    vocab = {byte: bytes([byte]) for byte in range(256)}
    assert merge_pairs(words, vocab, 40) == oracle_merges(Counter(words), 40)
    assert len(set(vocab.values())) == len(vocab), "no two merges make the same token"


def test_ties_go_to_the_greatest_pair_of_byte_strings():
    # Equal counts throughout. As pairs (b"b", b"a") > (b"a", b"z"); b"a" < b"ab" although "ab" + "c" == "a" + "bc".
    vocab = {byte: bytes([byte]) for byte in range(256)}
    assert merge_pairs({b"az": 1, b"ba": 1}, vocab, 1) == [(b"b", b"a")]
    # After (a, b): the pairs (ab, c) and (a, x) tie, and the longer first token is greater.
    vocab = {byte: bytes([byte]) for byte in range(256)}
    assert merge_pairs({b"abc": 2, b"ab": 1, b"ax": 2}, vocab, 2) == [(b"a", b"b"), (b"ab", b"c")]


def test_several_processes_and_tiny_blocks_count_the_same(tmp_path, monkeypatch):
    data = (
        "It's a tést<|a|> of   chunks,\r\n\n\u3000and a b's 中文。x 12½ <|a|><|a|>don't\n" * 40
    ).encode() + b"\xff\xe2"
    path = tmp_path / "text"
    path.write_bytes(data)
    expected = regex_words(data, OVERLAPPING)
    monkeypatch.setattr(plain_train, "SMALL_FILE", 0)
    monkeypatch.setattr(plain_train, "BLOCK_SIZE", 101)
    for num_workers in (1, 3):
        assert count_pretokens(path, OVERLAPPING, num_workers) == (expected, 2)


def test_real_text_and_many_merges(shared_data, tmp_path):
    data = (shared_data / "text" / "tinystories_val_cased.txt").read_bytes()[:60_000]
    check(tmp_path / "text", data, 300, [END])


def test_generated_text_and_many_merges(tmp_path):
    words = [f"{'qwertyuiop'[i % 10]}{'asdf'[i % 4]}{'zxc'[i * i % 3]}{i % 7}" for i in range(3000)]
    check(tmp_path / "text", f"{END}\n".join([" ".join(words[i::10]) for i in range(10)]).encode(), 150, [END])


def test_no_token_spans_a_special_token(tmp_path):
    path = tmp_path / "text"
    path.write_text(f"the end{END}the start " * 200 + END * 50)
    with pytest.warns(UserWarning, match="cannot fill a vocabulary of 400 tokens"):
        vocab, _ = train_bpe(path, 400, [END])
    ordinary = list(vocab.values())[:-1]
    assert not any(b"<|" in token or b"|>" in token or b"endoftext" in token for token in ordinary)
    assert vocab[len(vocab) - 1] == END.encode()


def test_a_text_that_cannot_fill_the_vocabulary_says_so(tmp_path):
    path = tmp_path / "text"
    path.write_text("aaaa")
    with pytest.warns(UserWarning, match="cannot fill a vocabulary of 500 tokens: no pair is left to merge at 259"):
        vocab, merges = train_bpe(path, 500, [END])
    assert merges == [(b"a", b"a"), (b"aa", b"aa")]
    assert len(vocab) == 259


def test_malformed_text_says_so(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"good \xff bad \xfe\xfe")
    with pytest.warns(UserWarning, match="not all UTF-8: 3 malformed sequences read as U"):
        train_bpe(path, 257, [END])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 257}, "vocabulary size 257 is too small.*at least 258"),
        ({"vocab_size": -1}, "at least 258"),
        ({"input_path": "nowhere/text.txt"}, "no text file nowhere"),
        ({"special_tokens": ["<a>", ""]}, "special token '' is not allowed"),
        ({"special_tokens": ["<a>", "<a>"]}, "special token '<a>' is given twice"),
        ({"special_tokens": ["\ud800"]}, "surrogate"),
        ({"num_workers": 0}, "number of workers 0"),
        ({"method": "slow"}, "unknown method 'slow': it must be one of auto, plain, fast"),
    ],
)
def test_bad_requests(tmp_path, changes, message):
    path = tmp_path / "text"
    path.write_text("some text")
    arguments = {"input_path": path, "vocab_size": 300, "special_tokens": ["<a>", "<b>"]} | changes
    with pytest.raises(UsageError, match=message):
        train_bpe(**arguments)


def test_the_smallest_vocabulary_has_no_merges(tmp_path):
    path = tmp_path / "text"
    path.write_text("some text some text")
    vocab, merges = train_bpe(path, 258, ["<a>", "<b>"])
    assert merges == []
    assert [vocab[256], vocab[257]] == [b"<a>", b"<b>"]


def test_training_needs_neither_torch_nor_numba_for_small_work(tmp_path):
    path = tmp_path / "text"
    path.write_text("some text é " * 50)
    program = (
        "import sys; from cs336_basics.bpe import train_bpe; from cs336_basics.tokenizer import Tokenizer\n"
        f"vocab, merges = train_bpe({str(path)!r}, 260, []); Tokenizer(vocab, merges).encode('text')\n"
        "print([name for name in ('torch', 'numba') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def test_both_methods_give_the_same_and_auto_chooses_by_size(tmp_path, monkeypatch):
    from cs336_basics.bpe import train

    path = tmp_path / "text"
    path.write_bytes("".join(AWKWARD[name].decode(errors="replace") for name in AWKWARD).encode())
    plain = train_bpe(path, 400, OVERLAPPING, method="plain")
    assert train_bpe(path, 400, OVERLAPPING, method="fast") == plain
    monkeypatch.setattr(train, "train_bpe_plain", lambda *_, **__: pytest.fail("the plain path was taken"))
    monkeypatch.setattr(train, "PLAIN_UP_TO_BYTES", path.stat().st_size - 1)
    assert train_bpe(path, 400, OVERLAPPING) == plain
