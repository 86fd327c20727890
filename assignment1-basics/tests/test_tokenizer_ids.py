"""The tokenizer's ids: tiktoken's for GPT-2's vocabulary, and those of a literal oracle for any other."""

import os
import subprocess
import sys
from itertools import count, pairwise

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.bpe.pretokenize import GPT2_PATTERN, pretokens
from cs336_basics.bpe.vocab_files import tiktoken_arguments
from cs336_basics.command_line import UsageError
from cs336_basics.tokenizer import LONG_PRETOKEN, Tokenizer

END = "<|endoftext|>"
BYTES = {byte: bytes([byte]) for byte in range(256)}
MERGES = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"a", b"a"), (b"aa", b"a"), (b"aa", b"aa"), (b"\xe4", b"\xb8")]
VOCAB = BYTES | {256 + rank: left + right for rank, (left, right) in enumerate(MERGES)}

SHORT_TEXTS = [
    *["", " ", "  ", "a", "\n", "\r\n", " \n ", "\x00", "\x00\x00a\x00", "\ufeff", "\ufffd"],
    *["'s", "it's", "IT'S", "'ll'll", "''s", "'", "' s", "don't 'tis", "we’re"],
    *["\U0001f600", "\U0001f469\u200d\U0001f4bb", "e\u0301", "Ａ１", "١٢٣", "½ ⅷ", "中文。字", "שלום", "ประเทศไทย"],
    *["a\u00a0b", "a\u3000b", "a \u2003 b", "a\x85b", "\u2028\u2029", "\u200b", "\x1c\x1d\x1e\x1f", "\x0b\x0c"],
    *["tab\tand  spaces   \n\n  end  ", "1234567", "x" * 300, "ab" * 200, " " * 200, "\n" * 99, "!?" * 70],
    *[END, END * 3, f"a{END}b", f" {END} ", "<|endof", "<|endoftext|", f"<|endof{END}text|>"],
]


@pytest.fixture(scope="module")
def gpt2(shared_data) -> tuple[Tokenizer, tiktoken.Encoding]:
    folder = shared_data / "tokenizer"
    tokenizer = Tokenizer.from_files(folder / "gpt2_vocab.json", folder / "gpt2_merges.txt", [END])
    arguments = tiktoken_arguments(tokenizer.vocab, tokenizer.merges, [END])
    return tokenizer, tiktoken.Encoding("gpt2", explicit_n_vocab=50257, **arguments)


@pytest.mark.parametrize("text", SHORT_TEXTS)
def test_gpt2_ids_of_awkward_texts(gpt2, text):
    tokenizer, encoding = gpt2
    assert tokenizer.encode(text) == encoding.encode(text, allowed_special="all")
    assert tokenizer.decode(tokenizer.encode(text)) == text


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
mixed = st.lists(texts | st.sampled_from([*SHORT_TEXTS, "the ", " hat", "ing"]), max_size=8).map("".join)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(text=mixed)
def test_gpt2_ids_of_random_texts(gpt2, text):
    tokenizer, encoding = gpt2
    assert tokenizer.encode(text) == encoding.encode(text, allowed_special="all")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None, derandomize=True, max_examples=200)
@given(text=st.text(st.characters(), max_size=12) | st.text("a\ud83d\ude00\ud800 \udfff", max_size=12))
def test_surrogates_are_read_as_tiktoken_reads_them(gpt2, text):
    tokenizer, encoding = gpt2
    assert tokenizer.encode(text) == encoding.encode(text, allowed_special="all")


@pytest.mark.parametrize(
    "name", ["tinystories_val_cased.txt", "wikitext2_test.txt", "novels/Austen_Emma.txt", "tinyshakespeare.txt"]
)
def test_gpt2_ids_of_real_texts(gpt2, shared_data, name):
    tokenizer, encoding = gpt2
    path = shared_data / "text" / name
    if not path.is_file():
        path = sorted((shared_data / "text" / "novels").glob("*.txt"))[0]
    text = path.read_bytes()[:600_000].decode(errors="ignore")
    ids = tokenizer.encode(text)
    assert ids == encoding.encode(text, allowed_special="all")
    assert tokenizer.decode(ids) == text


def test_gpt2_ids_of_many_languages(gpt2, shared_data):
    import zipfile

    tokenizer, encoding = gpt2
    with zipfile.ZipFile(shared_data / "text" / "udhr2.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        texts = [archive.read(name).decode(errors="replace")[:3000] for name in names[::3]]
    assert len(texts) > 100
    for text in texts:
        assert tokenizer.encode(text) == encoding.encode(text, allowed_special="all")


# ---- any vocabulary --------------------------------------------------------------------------------------------------


def literal_bpe(pretoken: bytes) -> list[int]:
    """Merge the leftmost pair of the earliest merge, again and again, on byte strings."""
    tokens = [bytes([byte]) for byte in pretoken]
    while True:
        found = [(MERGES.index(pair), position) for position, pair in enumerate(pairwise(tokens)) if pair in MERGES]
        if not found:
            break
        _, position = min(found)
        tokens[position : position + 2] = [tokens[position] + tokens[position + 1]]
    return [next(token_id for token_id, known in VOCAB.items() if known == token) for token in tokens]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(text=st.text("aathe '\u4e2d1\n", max_size=60) | texts)
def test_ids_are_those_of_literal_merging(text):
    expected = [token_id for pretoken in pretokens(text) for token_id in literal_bpe(pretoken.encode())]
    assert Tokenizer(VOCAB, MERGES).encode(text) == expected


@settings(deadline=None, derandomize=True, max_examples=30)
@given(word=st.text("aathe中", min_size=LONG_PRETOKEN, max_size=LONG_PRETOKEN + 40))
def test_long_words_are_merged_alike(word):
    assert Tokenizer(VOCAB, MERGES).encode(word) == literal_bpe(word.encode())


def test_a_megabyte_without_a_space_takes_no_quadratic_time():
    tokenizer = Tokenizer(VOCAB, MERGES)
    for word in ("a" * 1_000_000, "the" * 30_000):
        ids = list(tokenizer.encode_plain(word))
        assert tokenizer.decode(ids) == word
        assert len(ids) < len(word) / 2


def test_the_handouts_example():
    vocab = {0: b" ", 1: b"a", 2: b"c", 3: b"e", 4: b"h", 5: b"t", 6: b"th", 7: b" c", 8: b" a", 9: b"the", 10: b" at"}
    merges = [(b"t", b"h"), (b" ", b"c"), (b" ", b"a"), (b"th", b"e"), (b" a", b"t")]
    tokenizer = Tokenizer(vocab, merges)
    assert tokenizer.encode("the cat ate") == [9, 7, 1, 5, 10, 3]
    assert tokenizer.decode([9, 7, 1, 5, 10, 3]) == "the cat ate"
    with pytest.raises(UsageError, match="no token for the byte 0x78"):
        tokenizer.encode("the fox"[4:].replace("f", "x"))


# ---- special tokens --------------------------------------------------------------------------------------------------


def test_of_overlapping_special_tokens_the_longest_wins():
    specials = ["<a>", "<a><a>", "<a><a><b>", "><"]
    tokenizer = Tokenizer(VOCAB, MERGES, specials)
    one, two, three, turn = range(len(VOCAB), len(VOCAB) + 4)
    assert tokenizer.encode("<a><a><a>") == [two, one]
    assert tokenizer.encode("<a><a><b>") == [three]
    assert tokenizer.encode("<a><a><a><b>") == [two, one, 60, 98, 62]
    assert tokenizer.encode("x><a>") == [120, turn, 97, 62]
    assert [tokenizer.decode([token_id]) for token_id in (one, two, three, turn)] == specials


def test_special_tokens_that_the_vocabulary_lacks_are_appended_in_order():
    tokenizer = Tokenizer(VOCAB, MERGES, ["<new>", "the", "<other>"])
    assert tokenizer.vocab_size == len(VOCAB) + 2
    assert tokenizer.encode("<new>the<other>") == [len(VOCAB), 257, len(VOCAB) + 1]
    assert len(VOCAB) == 256 + len(MERGES), "the vocabulary that was given is left as it was"
    assert tokenizer.special_tokens == ["<new>", "the", "<other>"]


def test_new_ids_come_after_the_greatest():
    assert Tokenizer(VOCAB | {1000: b"zz"}, MERGES, ["<new>"]).encode("<new>") == [1001]


def test_without_special_tokens_their_text_is_ordinary():
    tokenizer = Tokenizer(VOCAB | {263: END.encode()}, MERGES)
    assert tokenizer.encode(END) == list(END.encode())
    assert tokenizer.eos_id is None
    assert Tokenizer(VOCAB | {263: END.encode()}, MERGES, [END]).eos_id == 263


def test_a_special_token_may_hold_white_space():
    tokenizer = Tokenizer(VOCAB, MERGES, [" the ", "\n\n"])
    first, second = len(VOCAB), len(VOCAB) + 1
    assert tokenizer.encode("a the b the\n\n the") == [97, first, 98, 258, second, 258]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((VOCAB, MERGES, [""]), "special token '' is not allowed"),
        ((VOCAB, MERGES, ["<a>", "<a>"]), "'<a>' is given twice"),
        ((VOCAB, [(b"x", b"y")]), "merge 1, b'x' [+] b'y', does not fit the vocabulary: b'xy' is no token"),
        ((VOCAB | {-1: b"no"}, MERGES), "token id -1 is not allowed: ids are 0 to 4294967295"),
        ((VOCAB | {2**32: b"no"}, MERGES), "token id 4294967296 is not allowed"),
        ((VOCAB | {2**32 - 1: b"last"}, MERGES, ["<new>"]), "token id 4294967296 is not allowed"),
    ],
)
def test_bad_vocabularies(arguments, message):
    with pytest.raises(UsageError, match=message):
        Tokenizer(*arguments)


# ---- decoding --------------------------------------------------------------------------------------------------------


def test_malformed_bytes_decode_to_the_replacement_character():
    tokenizer = Tokenizer(VOCAB, MERGES)
    assert tokenizer.decode([0xFF, 97]) == "\ufffda"
    assert tokenizer.decode([0xE4, 0xB8]) == "\ufffd"
    assert tokenizer.decode(tokenizer.encode("中")[:1]) == "\ufffd"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("token_id", [-1, len(VOCAB), 10**9])
def test_an_unknown_id_is_an_error(token_id):
    with pytest.raises(UsageError, match=f"token id {token_id} is not in the vocabulary, whose greatest id is 262"):
        Tokenizer(VOCAB, MERGES).decode([97, token_id])


@settings(deadline=None, derandomize=True, max_examples=200)
@given(ids=st.lists(st.integers(0, 262), max_size=30))
def test_decoding_is_that_of_the_joined_bytes(ids):
    joined = b"".join(VOCAB[token_id] for token_id in ids)
    assert Tokenizer(VOCAB, MERGES).decode(ids) == joined.decode(errors="replace")


# ---- batches, copies, imports ----------------------------------------------------------------------------------------


def test_a_batch_has_the_ids_of_its_texts():
    tokenizer = Tokenizer(VOCAB, MERGES, [END])
    for num_workers in (None, 1, 3):
        assert tokenizer.encode_batch(SHORT_TEXTS, num_workers) == [tokenizer.encode(text) for text in SHORT_TEXTS]
    assert tokenizer.encode_batch([]) == []


def test_the_cache_is_bounded():
    from cs336_basics import tokenizer as module

    tokenizer = Tokenizer(VOCAB, MERGES)
    text = " ".join(map(str, range(module.CACHE_ENTRIES + 1000)))
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text
    assert len(tokenizer._cache) <= module.CACHE_ENTRIES


def test_the_pattern_is_gpt2s():
    assert GPT2_PATTERN == r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def test_importing_the_tokenizer_is_light():
    program = "import sys, cs336_basics.tokenizer; print([name for name in ('torch', 'numba') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


# ---- the fast path ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_fast_path() -> Tokenizer:
    return Tokenizer(VOCAB, MERGES, [END, END + END, "a b", "\n\n"])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(text=mixed | st.text("aathe '\u4e2d1\n\ud83d\ude00", max_size=60))
def test_the_fast_path_gives_the_same_ids(with_fast_path, text):
    assert with_fast_path.encode_fast(text) == list(with_fast_path.encode_plain(text))


def test_encode_takes_the_fast_path_once_it_is_loaded(with_fast_path):
    assert with_fast_path.encode_fast("the") == [257]
    text = "the theme of " * 100
    expected = list(with_fast_path.encode_plain(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "encode_plain", lambda *_: pytest.fail("the plain path was taken"))
        assert with_fast_path.encode(text) == expected


def test_an_interrupt_leaves_no_half_updated_tables_behind(monkeypatch):
    from cs336_basics.bpe.fast import encoding

    tokenizer = Tokenizer(VOCAB, MERGES, [END])
    encode_block, calls = encoding._encode_block, count()

    def interrupted_after_the_second_call(*arguments):
        status = encode_block(*arguments)
        if next(calls) == 1:
            raise KeyboardInterrupt
        return status

    monkeypatch.setattr(encoding, "_encode_block", interrupted_after_the_second_call)
    before, during, after = ("some words the first time", "other words, interrupted", "unlike anything before")
    assert tokenizer.encode_fast(before) == list(tokenizer.encode_plain(before))
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode_fast(during)
    for text in (after, during, before):
        assert tokenizer.encode_fast(text) == list(tokenizer.encode_plain(text))


def test_threads_may_share_a_tokenizer(with_fast_path):
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"{number} the theme " * (100 + number) for number in range(200)]
    expected = [list(with_fast_path.encode_plain(text)) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(with_fast_path.encode_fast, texts)) == expected


def test_a_copy_for_another_process_leaves_tables_and_cache_behind(with_fast_path):
    import pickle

    with_fast_path.encode_fast("the")
    with_fast_path.encode("some words")
    copied = pickle.dumps(with_fast_path)
    assert len(copied) < 20_000
    assert pickle.loads(copied).encode_fast("the theme") == with_fast_path.encode("the theme")


def test_a_vocabulary_without_all_bytes_stays_on_the_plain_path():
    tokenizer = Tokenizer({0: b"a", 1: b"aa"}, [(b"a", b"a")])
    assert not tokenizer.has_fast_path
    assert tokenizer.encode("a" * 1001) == [1] * 500 + [0]
