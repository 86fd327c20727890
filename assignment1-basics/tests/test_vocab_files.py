"""Vocabulary files: opened by HF tokenizers, transformers and tiktoken, and refused when damaged."""

import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Tokenizer

from cs336_basics.atomic_file import atomic_write
from cs336_basics.bpe import train_bpe, vocab_files
from cs336_basics.bpe.vocab_files import (
    byte_characters,
    fingerprint,
    load_directory,
    load_gpt2_files,
    load_own_file,
    save_directory,
    save_gpt2_files,
    save_own_file,
    tiktoken_arguments,
)
from cs336_basics.command_line import UsageError
from cs336_basics.tokenizer import Tokenizer

SPECIALS = ["<|endoftext|>", "<|end of text|>", "<|\n|>", "<|中|>"]
TEXT = (
    "The cat's hat, the café's “hats” — naïve résumés…\r\n\tdef f(x):\n        return x  # 1,234½ ٣\n"
    "\U0001f600 \U0001f469\u200d\U0001f4bb 中文字符。 Привет, мир! \u00a0\u3000 \x00\x7f\x85\n\n\n"
)

# Characters of one Unicode version only are left out: the libraries are built on different ones.
common = st.characters(categories=["L", "N", "P", "S", "Z", "M", "Cc"], max_codepoint=0x0250) | st.sampled_from(
    " \n\t'’\u3000中文字😀é\u0301"
)
real_looking = st.lists(st.text(common, max_size=6) | st.sampled_from([*SPECIALS, "the", " hat", "'s", "  "])).map(
    "".join
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Tokenizer]:
    folder = tmp_path_factory.mktemp("vocab")
    (folder / "text").write_bytes((TEXT * 3 + "the theme of the hat that they had " * 20).encode())
    tokenizer = Tokenizer(*train_bpe(folder / "text", 370, SPECIALS), SPECIALS)
    tokenizer.save(folder)
    return folder, tokenizer


@pytest.fixture(scope="module")
def peers(trained):
    folder, tokenizer = trained
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    hf = ByteLevelBPETokenizer(*files)
    hf.add_special_tokens(SPECIALS)
    transformers = GPT2Tokenizer(*files, extra_special_tokens=SPECIALS)
    arguments = tiktoken_arguments(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens)
    return hf, transformers, tiktoken.Encoding("trained", **arguments)


def test_other_libraries_read_the_files_and_give_the_same_ids(trained, peers):
    _, tokenizer = trained
    hf, transformers, encoding = peers
    text = "<|endoftext|>".join([TEXT] * 3) + "<|end of text|> <|\n|>x<|中|><|end of text|"
    ids = tokenizer.encode(text)
    assert hf.encode(text).ids == ids
    assert transformers.encode(text, add_special_tokens=False) == ids
    assert encoding.encode(text, allowed_special="all") == ids
    assert hf.get_vocab_size() == len(transformers) == encoding.n_vocab == tokenizer.vocab_size


@settings(deadline=None, derandomize=True, max_examples=200)
@given(text=real_looking)
def test_ids_of_random_texts_are_those_of_other_libraries(trained, peers, text):
    _, tokenizer = trained
    hf, _, encoding = peers
    ids = tokenizer.encode(text)
    assert encoding.encode(text, allowed_special="all") == ids
    assert hf.encode(text).ids == ids


def test_real_text_gets_the_ids_of_other_libraries(trained, peers, shared_data):
    _, tokenizer = trained
    hf, _, encoding = peers
    text = (shared_data / "text" / "wikitext2_valid.txt").read_bytes()[:200_000].decode(errors="ignore")
    ids = tokenizer.encode(text)
    assert hf.encode(text).ids == ids
    assert encoding.encode(text, allowed_special="all") == ids


def test_both_forms_come_back_as_they_were(trained, tmp_path):
    folder, tokenizer = trained
    wanted = tokenizer.vocab, tokenizer.merges
    assert load_gpt2_files(folder / "vocab.json", folder / "merges.txt", SPECIALS) == wanted
    assert load_own_file(folder / "bpe.json") == (*wanted, SPECIALS)
    assert load_directory(folder) == (*wanted, SPECIALS)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    vocab, merges, special_tokens = load_directory(tmp_path)  # GPT-2's files alone: special tokens are found again
    assert (vocab, merges, special_tokens) == (*wanted, SPECIALS)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(special=st.text(st.characters(exclude_categories=["Cs"]), min_size=2, max_size=8))
def test_any_special_token_comes_back(tmp_path_factory, special):
    folder = tmp_path_factory.getbasetemp()
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"th", 257: special.encode()}
    if special == "th":
        return
    save_directory(folder, vocab, [(b"t", b"h")], [special])
    assert load_gpt2_files(folder / "vocab.json", folder / "merges.txt", [special]) == (vocab, [(b"t", b"h")])
    assert load_own_file(folder / "bpe.json") == (vocab, [(b"t", b"h")], [special])


def test_gpt2s_own_files(shared_data):
    folder = shared_data / "tokenizer"
    tokenizer = Tokenizer.from_files(folder / "gpt2_vocab.json", folder / "gpt2_merges.txt", ["<|endoftext|>"])
    assert tokenizer.vocab_size == 50257
    assert len(tokenizer.merges) == 50000
    assert tokenizer.eos_id == 50256
    assert tokenizer.encode("Hello world<|endoftext|>") == [15496, 995, 50256]


def test_the_byte_characters_are_gpt2s():
    character_of, back = byte_characters()
    assert {back[character] for character in character_of.values()} == set(range(256))
    assert [character_of[byte] for byte in b" \n\tA\x00\xad\xff"] == ["Ġ", "Ċ", "ĉ", "A", "Ā", "Ń", "ÿ"]


def test_merges_without_a_header_or_with_windows_line_ends(trained, tmp_path):
    folder, tokenizer = trained
    _, _, lines = (folder / "merges.txt").read_text(encoding="utf-8").partition("\n")
    for content in (
        lines,
        lines.rstrip("\n"),
        "#version: 0.2\n" + lines,
        ("#version: 0.2\n" + lines).replace("\n", "\r\n"),
    ):
        (tmp_path / "merges.txt").write_bytes(content.encode())
        _, merges = load_gpt2_files(folder / "vocab.json", tmp_path / "merges.txt", SPECIALS)
        assert merges == tokenizer.merges


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    folder, _ = trained
    for name in ("vocab.json", "merges.txt", "bpe.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


def load_copy(folder: Path) -> None:
    load_gpt2_files(folder / "vocab.json", folder / "merges.txt", SPECIALS)


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_truncated_gpt2_file_is_refused(copy, name, kept):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UsageError, match=f"{name}.*(cut short|not UTF-8|two tokens)"):
        load_copy(copy)


@pytest.mark.parametrize("header", [True, False])
def test_merges_cut_at_a_line_end_are_refused(copy, header):
    lines = (copy / "merges.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (copy / "merges.txt").write_text("".join(lines[: len(lines) // 2] if header else lines[1:50]), encoding="utf-8")
    with pytest.raises(UsageError, match=r"merges.txt.*cut short"):
        load_copy(copy)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", b"[1, 2]", "must be one JSON object"),
        ("vocab.json", b'{"a": "b"}', "must be one JSON object"),
        ("vocab.json", b'{"a": 0, "b": 0}', "id 0 is negative or given to two tokens"),
        ("vocab.json", b'{"a": -1}', "id -1 is negative"),
        ("vocab.json", b'{"a": 0}', "do not belong together: merge 1 needs"),
        ("vocab.json", b"\xff\xfe\x00", "not UTF-8"),
        ("merges.txt", b"a b c\n", "line 1: 'a b c' is not two tokens"),
        ("merges.txt", "中 文\n".encode(), "line 1: .* is not two tokens"),
        ("merges.txt", b"", "lacks the merge that makes token"),
    ],
)
def test_a_foreign_gpt2_file_is_refused(copy, name, content, message):
    (copy / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_copy(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cut short or not JSON"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "version 2; this program reads version 1"),
        (lambda text: text.replace('"300": "', '"300": "20'), "damaged: its content does not fit its checksum"),
        (lambda text: "{}", "not a tokenizer of this project"),
        (lambda text: "[]", "not a tokenizer of this project"),
    ],
)
def test_a_damaged_file_of_our_form_is_refused(copy, change, message):
    text = (copy / "bpe.json").read_text()
    assert change(text) != text
    (copy / "bpe.json").write_text(change(text))
    with pytest.raises(UsageError, match=message):
        load_directory(copy)


def test_missing_files(tmp_path):
    with pytest.raises(UsageError, match="holds no tokenizer: neither"):
        load_directory(tmp_path)
    with pytest.raises(UsageError, match=r"there is no file .*vocab\.json"):
        load_gpt2_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_two_ids_with_the_same_bytes_fit_only_our_form(tmp_path):
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"a"}
    with pytest.raises(UsageError, match="ids 97 and 256: both are b'a'"):
        save_gpt2_files(tmp_path / "vocab.json", tmp_path / "merges.txt", vocab, [], ["a"])
    assert list(tmp_path.iterdir()) == []
    save_own_file(tmp_path / "bpe.json", vocab, [], ["a"])
    assert Tokenizer(*load_own_file(tmp_path / "bpe.json")).encode("ab") == [256, 98]


@pytest.mark.parametrize("step", ["vocab.json", "merges.txt", "bpe.json"])
def test_a_kill_while_saving_never_leaves_the_old_tokenizer_beside_new_files(copy, monkeypatch, step):
    old = load_directory(copy)
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"xy", 257: SPECIALS[0].encode()}
    new = vocab, [(b"x", b"y")], SPECIALS[:1]

    def killed(path, *arguments):
        if Path(path).name == step:
            raise KeyboardInterrupt
        return atomic_write(path, *arguments)

    monkeypatch.setattr(vocab_files, "atomic_write", killed)
    with pytest.raises(KeyboardInterrupt):
        save_directory(copy, *new)
    if step == "merges.txt":
        with pytest.raises(UsageError, match="do not belong together"):
            load_directory(copy)
    else:
        assert load_directory(copy) == (old if step == "vocab.json" else new)


def test_a_refused_tokenizer_leaves_the_old_one(copy):
    old = load_directory(copy)
    with pytest.raises(UsageError, match="both are b'a'"):
        save_directory(copy, {byte: bytes([byte]) for byte in range(256)} | {256: b"a"}, [], ["a"])
    assert load_directory(copy) == old


def test_the_fingerprint_changes_with_everything(trained):
    _, tokenizer = trained
    vocab, merges = tokenizer.vocab, tokenizer.merges
    prints = {
        fingerprint(vocab, merges, SPECIALS),
        fingerprint(vocab | {300: b"other"}, merges, SPECIALS),
        fingerprint(vocab, merges[1:], SPECIALS),
        fingerprint(vocab, merges, SPECIALS[1:]),
    }
    assert len(prints) == 4
    assert fingerprint(dict(reversed(vocab.items())), merges, SPECIALS) in prints


def test_tiktoken_needs_ids_in_the_order_of_the_merges():
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"cd", 257: b"ab"}
    with pytest.raises(UsageError, match="not in the order of the merges"):
        tiktoken_arguments(vocab, [(b"a", b"b"), (b"c", b"d")], [])


def test_the_saved_vocabulary_is_plain_json(trained):
    folder, tokenizer = trained
    content = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert content["<|endoftext|>"] == tokenizer.eos_id
    assert content["<|end of text|>"] == tokenizer.vocab_size - 3  # as itself: that is how others look it up
    assert content["Ġ"] == 32
