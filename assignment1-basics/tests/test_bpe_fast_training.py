"""The fast trainer against an oracle that counts every pair anew before each merge, and against the plain path."""

import subprocess
import sys
import warnings
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.bpe.fast import train_bpe_fast
from cs336_basics.bpe.fast.merging import merge_words
from cs336_basics.bpe.plain_train import train_bpe_plain
from cs336_basics.stories import generate_stories

from .bpe_texts import (
    AWKWARD,
    END,
    SPECIAL_TOKENS,
    block_sizes,
    chunk_sizes,
    oracle_merges,
    regex_words,
    special_tokens,
    texts,
)


def stories(seed: int, number: int) -> bytes:
    return END.join(islice(generate_stories(seed), number)).encode()


def train(path, data, num_merges, specials, **sizes):
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # malformed texts say so
        return train_bpe_fast(path, 256 + num_merges + len(specials), specials, **sizes)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    data=texts, num_merges=st.integers(0, 60), specials=special_tokens, block_bytes=block_sizes, chunk_bytes=chunk_sizes
)
def test_random_texts(tmp_path_factory, data, num_merges, specials, block_bytes, chunk_bytes):
    path = tmp_path_factory.getbasetemp() / "training.txt"
    vocab, merges = train(path, data, num_merges, specials, block_bytes=block_bytes, chunk_bytes=chunk_bytes)
    assert merges == oracle_merges(regex_words(data, specials), num_merges)
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [left + right for left, right in merges] + [token.encode() for token in specials]
    assert vocab == dict(enumerate(tokens))


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_texts(tmp_path, name):
    for specials in SPECIAL_TOKENS[:4]:
        _, merges = train(tmp_path / "text", AWKWARD[name], 40, specials, block_bytes=100, num_threads=2)
        assert merges == oracle_merges(regex_words(AWKWARD[name], specials), 40)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(words=st.dictionaries(st.text("abc", min_size=1, max_size=16).map(str.encode), st.integers(1, 4), max_size=25))
def test_words_with_runs_and_ties(words):
    """Few letters: overlapping pairs, neighbors merged a moment ago, and equal counts everywhere."""
    lengths = [len(word) for word in words]
    got = merge_words(
        np.frombuffer(b"".join(words), dtype=np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array(list(words.values()), dtype=np.int64),
        50,
        np.zeros(2, dtype=np.int64),
    )
    assert got == oracle_merges(Counter(words), 50)


def test_ties_between_tokens_that_begin_alike(tmp_path):
    """The first 8 bytes are compared as a number: what differs later, and what is shorter, must be told apart too."""
    words = [b"aaaaaaaa" + end for end in (b"", b"\0", b"a", b"b", b"\0\0", b"ab", b"ba", b"\0b")]
    data = b" ".join(words * 3)
    _, merges = train(tmp_path / "text", data, 100, [])
    assert merges == oracle_merges(regex_words(data, []), 100)


def test_number_of_threads_and_blocks_do_not_matter(tmp_path):
    data = stories(3, 400)
    results = [
        train(tmp_path / "text", data, 500, [END], num_threads=threads, block_bytes=size)
        for threads, size in ((1, 1 << 22), (2, 5_000), (5, 40_000))
    ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("num_merges", [700, 10**7])
def test_plain_path_on_stories(tmp_path, num_merges):
    """Also with a vocabulary that the text cannot fill."""
    data = stories(5, 100)
    fast = train(tmp_path / "text", data, num_merges, [END])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert fast == train_bpe_plain(tmp_path / "text", 256 + num_merges + 1, [END])
    assert len(fast[0]) == 256 + len(fast[1]) + 1


def test_plain_path_on_real_text(shared_data, tmp_path):
    data = (shared_data / "text" / "wikitext2_valid.txt").read_bytes()[:400_000]
    assert train(tmp_path / "text", data, 3000, [END]) == train_bpe_plain(tmp_path / "text", 3257, [END])


def test_empty_file(tmp_path):
    vocab, merges = train(tmp_path / "text", b"", 100, [END])
    assert merges == []
    assert len(vocab) == 257


def test_one_long_word(tmp_path):
    _, merges = train(tmp_path / "text", b"a" * (1 << 20), 100, [])
    assert merges == [(b"a" * (1 << k), b"a" * (1 << k)) for k in range(20)]


def test_malformed_text_is_said(tmp_path):
    (tmp_path / "text").write_bytes(b"one \xff two \xe2\x80 three")
    with pytest.warns(UserWarning, match="2 malformed sequences"):
        train_bpe_fast(tmp_path / "text", 260, [])


def test_a_failure_in_a_thread_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        train_bpe_fast(tmp_path / "missing", 300, [])


MEMORY_PROGRAM = """
import re, sys
from pathlib import Path
from cs336_basics.bpe.fast import train_bpe_fast
train_bpe_fast(sys.argv[1], 2000, ["<|endoftext|>"], num_threads=2)
print(re.search("VmHWM: *(\\d+) kB", Path("/proc/self/status").read_text().replace("\\t", " ")).group(1))
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="needs Linux: peak memory from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    story = stories(1, 500)
    peaks = []
    for megabytes in (1, 20, 120):  # the first run fills the cache of compiled code
        with open(tmp_path / "text", "wb") as file:
            for _ in range(1 + megabytes * 1_000_000 // len(story)):
                file.write(story + END.encode())
        program = [sys.executable, "-c", MEMORY_PROGRAM, tmp_path / "text"]
        output = subprocess.run(program, check=True, capture_output=True, text=True).stdout
        peaks.append(int(output))
    assert peaks[2] < peaks[1] + 20_000
    assert peaks[2] < 250_000
