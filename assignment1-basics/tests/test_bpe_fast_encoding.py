"""The fast encoder against tiktoken, HF tokenizers and the plain path."""

import random
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from cs336_basics.bpe.fast import FastEncoder, blocks, train_bpe_fast
from cs336_basics.bpe.vocab_files import load_gpt2_files
from cs336_basics.command_line import UsageError
from cs336_basics.stories import generate_stories
from cs336_basics.tokenizer import Tokenizer

from .bpe_texts import (
    AWKWARD,
    END,
    PATTERN,
    SPECIAL_TOKENS,
    WELL_FORMED,
    block_sizes,
    chunk_sizes,
    special_tokens,
    tail_sizes,
    texts,
    well_formed_texts,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A vocabulary of stories and of the awkward pieces, so that random texts meet many merges."""
    rng = random.Random(0)
    text = END.join(islice(generate_stories(1), 60)) + "".join(rng.choices(WELL_FORMED, k=20_000))
    path = tmp_path_factory.mktemp("encoding") / "text"
    path.write_bytes(text.encode())
    return train_bpe_fast(path, 2000, [END])


def with_specials(vocab, specials):
    """The vocabulary with the special tokens after it, as the tokenizer adds them."""
    return Tokenizer(vocab, [], specials).vocab


def as_tiktoken(vocab, special_ids):
    """tiktoken with our vocabulary; its ranks are the ids, so these must be in the order of the merges."""
    ranks = {token: token_id for token_id, token in vocab.items() if token_id not in special_ids.values()}
    return tiktoken.Encoding("ours", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special_ids)


def plain_ids(vocab, merges, specials, data):
    return list(Tokenizer(vocab, merges, specials).encode_plain(data.decode(errors="replace")))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(text=well_formed_texts, block_bytes=block_sizes, chunk_bytes=chunk_sizes)
def test_tiktoken_on_random_texts(trained, text, block_bytes, chunk_bytes):
    vocab, merges = trained
    encoder = FastEncoder(vocab, merges, [END], block_bytes=block_bytes, chunk_bytes=chunk_bytes)
    assert encoder.encode(text.encode()).tolist() == as_tiktoken(vocab, {END: 1999}).encode(text, allowed_special="all")


def printable_bytes() -> dict[int, str]:
    """GPT-2's printable character for each byte, read off HF's own pre-tokenizer alphabet."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    kept = [byte for byte in range(256) if chr(byte) in alphabet]
    others = [byte for byte in range(256) if chr(byte) not in alphabet]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def test_hf_tokenizers(trained):
    vocab, merges = trained
    text = END.join(islice(generate_stories(2), 200)) + "".join(random.Random(1).choices(WELL_FORMED, k=5000))
    to_printable = printable_bytes()

    def printable(token: bytes) -> str:
        return "".join(to_printable[byte] for byte in token)

    hf = HFTokenizer(
        models.BPE(
            vocab={printable(token): token_id for token_id, token in vocab.items() if token_id != 1999},
            merges=[(printable(left), printable(right)) for left, right in merges],
        )
    )
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    hf.add_special_tokens([AddedToken(END, normalized=False)])
    assert hf.token_to_id(END) == 1999
    assert FastEncoder(vocab, merges, [END]).encode(text.encode()).tolist() == hf.encode(text).ids


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    data=texts,
    specials=special_tokens,
    block_bytes=block_sizes,
    chunk_bytes=chunk_sizes,
    cached_words=st.sampled_from([1, 1 << 18]),
    tail_bytes=tail_sizes,
)
def test_plain_path_on_random_texts(trained, data, specials, block_bytes, chunk_bytes, cached_words, tail_bytes):
    """Malformed bytes and overlapping special tokens too, twice: with an empty cache and with a filled one."""
    vocab, merges = with_specials(trained[0], specials), trained[1]
    sizes = {"block_bytes": block_bytes, "chunk_bytes": chunk_bytes, "cached_words": cached_words}
    encoder = FastEncoder(vocab, merges, specials, **sizes)
    expected = plain_ids(vocab, merges, specials, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_TAIL_BYTES", tail_bytes)
        assert encoder.encode(data).tolist() == expected
        assert encoder.encode(data).tolist() == expected
    assert encoder.num_malformed == 2 * (data.decode(errors="replace").count("\ufffd") - data.count("\ufffd".encode()))


@pytest.mark.parametrize("name", AWKWARD)
def test_plain_path_on_awkward_texts(trained, name):
    for specials in SPECIAL_TOKENS:
        vocab = with_specials(trained[0], specials)
        encoder = FastEncoder(vocab, trained[1], specials, block_bytes=100)
        assert encoder.encode(AWKWARD[name]).tolist() == plain_ids(vocab, trained[1], specials, AWKWARD[name])


def test_ids_in_any_order(trained):
    """The order of the merges counts, not that of the ids."""
    vocab, merges = trained
    ids = list(range(len(vocab)))
    random.Random(3).shuffle(ids)
    shuffled = {3 * ids[token_id] + 70_000: token for token_id, token in vocab.items()}
    text = END.join(islice(generate_stories(4), 50)).encode()
    original = FastEncoder(vocab, merges, [END]).encode(text)
    assert FastEncoder(shuffled, merges, [END]).encode(text).tolist() == [3 * ids[i] + 70_000 for i in original]


def test_merges_in_any_order(trained):
    """A merge may come before those that make its parts, or twice: the lowest rank that applies goes first."""
    vocab, merges = trained
    shuffled = merges[:300] * 2
    random.Random(4).shuffle(shuffled)
    data = "".join(random.Random(5).choices(WELL_FORMED, k=3000)).encode()
    assert FastEncoder(vocab, shuffled, [END]).encode(data).tolist() == plain_ids(vocab, shuffled, [END], data)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(word=st.text("abethn", min_size=1, max_size=400))
def test_long_words(trained, word):
    """On both sides of the length from which a heap takes the place of scanning."""
    vocab, merges = trained
    assert FastEncoder(vocab, merges, []).encode(word.encode()).tolist() == plain_ids(vocab, merges, [], word.encode())


def test_a_word_larger_than_a_block(trained):
    vocab, merges = trained
    data = b"abthe" * 50_000
    ids = FastEncoder(vocab, merges, [], block_bytes=1 << 16).encode(data)
    assert b"".join(vocab[i] for i in ids.tolist()) == data
    assert ids.tolist() == plain_ids(vocab, merges, [], data)


def test_small_caches_are_emptied_and_refilled(trained):
    vocab, merges = trained
    rng = random.Random(6)
    words = ["".join(rng.choices("abetn12.", k=rng.randint(1, 40))) for _ in range(60_000)]
    data = " ".join(words + words[::-1]).encode()
    small, large = FastEncoder(vocab, merges, [], cached_words=1000), FastEncoder(vocab, merges, [])
    expected = large.encode(data)
    assert (small.encode(data) == expected).all()
    assert (small.encode(data) == expected).all()
    assert len(small._table.rows) < len(large._table.rows)


def test_clones_in_threads(trained):
    vocab, merges = trained
    encoder = FastEncoder(vocab, merges, [END])
    parts = [END.join(islice(generate_stories(seed), 150)).encode() for seed in range(8)]
    expected = [encoder.encode(part).tolist() for part in parts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda part: encoder.clone().encode(part).tolist(), parts)) == expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, dtype=np.uint8)])
def test_kinds_of_input(trained, kind):
    vocab, merges = trained
    ids = FastEncoder(vocab, merges, [END]).encode(kind(b"one two" + END.encode()))
    assert ids.dtype == np.uint32
    assert b"".join(vocab[i] for i in ids.tolist()) == b"one two" + END.encode()
    assert FastEncoder(vocab, merges, [END]).encode(kind(b"")).tolist() == []


def test_what_the_vocabulary_lacks_is_named(trained):
    vocab, merges = trained
    for missing in (b"x", merges[5][0] + merges[5][1], END.encode()):
        incomplete = {token_id: token for token_id, token in vocab.items() if token != missing}
        with pytest.raises(UsageError, match="the vocabulary has no token") as error:
            FastEncoder(incomplete, merges, [END])
        assert repr(missing) in str(error.value)


@pytest.fixture(scope="module")
def gpt2(shared_data):
    folder = shared_data / "tokenizer"
    vocab, merges = load_gpt2_files(folder / "gpt2_vocab.json", folder / "gpt2_merges.txt", [END])
    return FastEncoder(vocab, merges, [END]), as_tiktoken(vocab, {END: 50256})


def test_gpt2_ids_of_real_texts(gpt2, shared_data):
    encoder, reference = gpt2
    files = [
        *sorted((shared_data / "text").glob("*.txt")),
        *sorted((shared_data / "text" / "novels").glob("*.txt"))[:3],
    ]
    assert files
    for file in files:
        text = file.read_bytes().decode()
        assert encoder.encode(text.encode()).tolist() == reference.encode(text, allowed_special="all"), file


def test_gpt2_ids_of_many_languages(gpt2, shared_data):
    encoder, reference = gpt2
    with zipfile.ZipFile(shared_data / "text" / "udhr2.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        text = "".join(archive.read(name).decode(errors="replace") for name in names)[:600_000]
    # Code points that only one of the two knows as letters would be cut apart differently; there are none in here.
    assert encoder.encode(text.encode()).tolist() == reference.encode(text, allowed_special="all")
