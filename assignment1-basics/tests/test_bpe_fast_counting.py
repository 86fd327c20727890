"""The fast path's pre-tokens and their counts against the `regex` module."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings

from cs336_basics.bpe.fast import blocks
from cs336_basics.bpe.fast.counting import WordCounter, count_file
from cs336_basics.bpe.text_blocks import safe_cut

from .bpe_texts import (
    AWKWARD,
    END,
    MALFORMED,
    SPECIAL_TOKENS,
    block_sizes,
    chunk_sizes,
    regex_words,
    special_tokens,
    tail_sizes,
    texts,
    texts_full_of_special_tokens,
)


def words_of(counter: WordCounter) -> Counter[bytes]:
    letters, offsets, counts = counter.words()
    words = Counter({letters[offsets[i] : offsets[i + 1]].tobytes(): int(counts[i]) for i in range(len(counts))})
    assert len(words) == len(counts), "a word is in the table twice"
    return words


def replacements(data: bytes) -> int:
    return data.decode(errors="replace").count("\ufffd") - data.count("\ufffd".encode())


def check(path, data, specials, num_threads=1, **sizes):
    path.write_bytes(data)
    counter = count_file(path, specials, num_threads, **sizes)
    assert words_of(counter) == regex_words(data, specials)
    assert counter.num_malformed == replacements(data)


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("block_bytes", [50, 1 << 22])
def test_awkward_texts(tmp_path, name, block_bytes):
    for specials in SPECIAL_TOKENS:
        check(tmp_path / "text", AWKWARD[name], specials, num_threads=2, block_bytes=block_bytes, chunk_bytes=64)


@settings(deadline=None, derandomize=True, max_examples=600)
@given(data=texts, specials=special_tokens, block_bytes=block_sizes, chunk_bytes=chunk_sizes, tail_bytes=tail_sizes)
def test_random_texts(tmp_path_factory, data, specials, block_bytes, chunk_bytes, tail_bytes):
    path = tmp_path_factory.getbasetemp() / "counting.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_TAIL_BYTES", tail_bytes)
        check(path, data, specials, block_bytes=block_bytes, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("malformed", MALFORMED)
def test_malformed_bytes_anywhere(tmp_path, malformed):
    for position in (0, 5, 62, 63, 64, 65, 200):
        text = (b"some words and a little more " * 10)[:200]
        data = text[:position] + malformed + text[position:]
        check(tmp_path / "text", data, [END])
        check(tmp_path / "text", data, [END], block_bytes=16, chunk_bytes=8)


def test_special_tokens_across_block_borders(tmp_path):
    token = "<|end of the text|>"
    data = b"".join(b"word " * n + token.encode() + b" " * (n % 3) for n in range(40))
    for block_bytes in range(20, 60):
        check(tmp_path / "text", data, [token, "word <|"], block_bytes=block_bytes, chunk_bytes=16)


def test_a_special_token_that_begins_before_the_tail(tmp_path):
    """A cut is looked for in the last bytes first, and they may begin within a special token."""
    data = b"a b " + END.encode() + b"x" * 20_000
    for size in range(blocks._TAIL_BYTES, blocks._TAIL_BYTES + 20):
        assert blocks.last_safe_cut(np.frombuffer(data, dtype=np.uint8), size, [END.encode()]) == 3
        check(tmp_path / "text", data, [END], block_bytes=size)


@settings(deadline=None, derandomize=True, max_examples=600)
@given(data=texts_full_of_special_tokens, specials=special_tokens, tail_bytes=tail_sizes)
def test_the_last_safe_cut_is_found_from_the_tail(data, specials, tail_bytes):
    tokens = [token.encode() for token in specials]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_TAIL_BYTES", tail_bytes)
        cut = blocks.last_safe_cut(np.frombuffer(data, dtype=np.uint8), len(data), tokens)
    assert cut == safe_cut(data, tokens)
    assert regex_words(data[:cut], specials) + regex_words(data[cut:], specials) == regex_words(data, specials)


def test_a_text_without_white_space(tmp_path):
    check(tmp_path / "text", b"ab1.c" * 200_000, [], block_bytes=1 << 16)


def test_one_word_of_several_megabytes(tmp_path):
    check(tmp_path / "text", b"x" + b"ab" * 2_000_000 + b" end", [], block_bytes=1 << 16)


def test_more_different_words_than_the_table_begins_with(tmp_path):
    data = b" ".join(b"%x-%s" % (number, b"long" * (number % 9)) for number in range(60_000))
    check(tmp_path / "text", data, [], num_threads=3, block_bytes=1 << 16)


def test_real_texts(shared_data, tmp_path):
    for file in ("tinystories_val_cased.txt", "wikitext2_valid.txt", "tinyshakespeare.txt"):
        check(tmp_path / "text", (shared_data / "text" / file).read_bytes(), [END, " = "], block_bytes=100_000)


def test_many_languages(shared_data, tmp_path):
    import zipfile

    with zipfile.ZipFile(shared_data / "text" / "udhr2.zip") as archive:
        declarations = [archive.read(name) for name in archive.namelist() if name.endswith(".txt")]
    check(tmp_path / "text", b"".join(declarations), [END], num_threads=2, block_bytes=1 << 20)
