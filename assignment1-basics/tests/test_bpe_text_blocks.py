"""A text cut into blocks gives the pre-tokens and special tokens of the whole text."""

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.bpe.pretokenize import pretokens, special_token_pattern, split_at_special_tokens
from cs336_basics.bpe.text_blocks import cut_into_blocks, decode_utf8, read_blocks, safe_cut

SPECIALS = ["<|endoftext|>", "<|endoftext|><|endoftext|>", "a b", " b", "\n\n", "'s x", "。终", "x<"]
FRAGMENTS = [
    *SPECIALS,
    *["<|endof", "text|>", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2003", "\x85", "\x00", "\x1c"],
    *["'", "'s", "'l", "l", "'re", "don't", "abc", "a", "b", "12", "½", "٣", "!", "...", "_", "{}"],
    *[
        "中文",
        "。",
        "，",
        "é",
        "e\u0301",
        "\U0001f469\u200d\U0001f4bb",
        "\U0001f600",
        "\ufffd",
        "\ufeff",
        "ß",
        "\U00018e00",
        *["слово", "ж", "λ", "א", "ع", "हिन्दी", "ไ", "한국", "字", "\u1680", "\u2028", "\u07ff", "\u0800", "\u4000"],
    ],
]
texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=30).map("".join)
special_lists = st.lists(st.sampled_from(SPECIALS), unique=True, max_size=4)


def all_pieces(text: str, special_tokens: list[str]) -> list[tuple[str, bool]]:
    """Every pre-token and special token of a text, in order."""
    found = []
    for piece, is_special in split_at_special_tokens(text, special_token_pattern(special_tokens)):
        found += [(piece, True)] if is_special else [(pretoken, False) for pretoken in pretokens(piece)]
    return found


@settings(deadline=None, derandomize=True, max_examples=600)
@given(text=texts, special_tokens=special_lists, block_size=st.integers(1, 12), data=st.data())
def test_blocks_give_the_pieces_of_the_whole_text(text, special_tokens, block_size, data):
    encoded = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    parts = [encoded[start:end] for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    blocks = list(cut_into_blocks(parts, special_tokens, block_size))
    assert b"".join(blocks) == encoded
    pieces = [piece for block in blocks for piece in all_pieces(block.decode(), special_tokens)]
    assert pieces == all_pieces(text, special_tokens)


@settings(deadline=None, derandomize=True, max_examples=600)
@given(before=texts, after=texts, special_tokens=special_lists)
def test_a_safe_cut_stays_safe_whatever_follows(before, after, special_tokens):
    encoded = before.encode()
    cut = safe_cut(encoded, [token.encode() for token in special_tokens])
    left, right = encoded[:cut].decode(), encoded[cut:].decode() + after
    assert all_pieces(left, special_tokens) + all_pieces(right, special_tokens) == all_pieces(
        before + after, special_tokens
    )


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    data=st.lists(
        st.binary(max_size=4)
        | texts.map(str.encode)
        | st.sampled_from([b"a \xff", b"\xe2\x82 \xff b", b" \xf0\x9f\x98"]),
        max_size=10,
    ).map(b"".join)
)
def test_malformed_bytes_do_not_disturb_the_cuts(data):
    specials = [*SPECIALS, "a \ufffd", "\ufffd\ufffd b", " \ufffd"]
    blocks = list(cut_into_blocks([data], specials, 3))
    decoded = [decode_utf8(block) for block in blocks]
    text, num_malformed = decode_utf8(data)
    assert "".join(part for part, _ in decoded) == text
    assert sum(count for _, count in decoded) == num_malformed
    assert [piece for part, _ in decoded for piece in all_pieces(part, specials)] == all_pieces(text, specials)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"plain", 0),
        ("\ufffd is not malformed".encode(), 0),
        (b"\xff\xfe", 2),
        (b"\xe2\x82", 1),  # the longest prefix of a character counts once
        (b"\xe2\x82(\xa1", 2),
        (b"\xed\xa0\x80", 3),  # a surrogate in UTF-8: no byte of it begins a character
        (b"\xf0\x9f\x98\x80\xf0\x9f\x98", 1),
        (b"\xc0\xaf", 2),  # overlong
    ],
)
def test_malformed_sequences_are_counted(data, count):
    text, num_malformed = decode_utf8(data)
    assert text == data.decode(errors="replace")
    assert num_malformed == count


@pytest.mark.parametrize(
    ("data", "specials", "cut"),
    [
        (b"one two three", [], 7),
        (b"one two ", [], 7),  # the last space may belong to a word that follows
        (b"one two  ", [], 7),
        (b"word", [], 0),
        (b"one two", [b"e t"], 0),
        (b"one two <|endof", [b"<|endoftext|>"], 3),  # a special token may begin at the second space? no: it has none
        (b"a\n\nb", [b"\n\n"], 1),
        ("中文。".encode(), [], 6),
        ("a中".encode()[:-1], [], 0),
        (b"a bcdefg", [b"a bcdefghijkl"], 0),  # the token is longer than the text
        (b"a b", [b"x" * 100], 0),
        ("да нет".encode(), [], 4),
        ("καλή\n".encode(), [], 8),
        ("한국 말".encode(), [], 6),
        ("हिन्दी में".encode(), [], 18),
        ("\u1680 \u2003 \u3000 \u00a0 \x85 ".encode(), [], 0),
    ],
)
def test_where_the_last_safe_cut_is(data, specials, cut):
    assert safe_cut(data, specials) == cut


def test_text_without_a_safe_place_is_one_block():
    data = b"x" * 1000
    assert list(cut_into_blocks([data], (), 10)) == [data]
    assert list(cut_into_blocks([], (), 10)) == []


def test_a_file_is_read_in_small_blocks(tmp_path: Path):
    text = "The quick brown fox.\r\n" * 5000
    file = io.BytesIO(text.encode())
    blocks = list(read_blocks(file, ["<|endoftext|>"], 1000))
    assert b"".join(blocks) == text.encode()
    assert max(map(len, blocks)) < 2000
    assert len(blocks) > 100


def test_chinese_characters_next_to_a_cut_are_letters_and_the_punctuation_is_not():
    # The ranges that the safe places rely on, in the declared Unicode version.
    from cs336_basics.bpe.unicode_classes import LETTER, OTHER, class_of

    assert {class_of(chr(code)) for code in range(0x5000, 0xA000)} == {LETTER}
    assert {class_of(chr(code)) for code in (0x3001, 0x3002, *range(0xFF01, 0xFF10))} == {OTHER}


def test_no_character_that_a_cut_may_follow_is_white_space():
    """All of U+0000 to U+10FFFF: a cut between it and a space is made exactly for the declared ranges."""
    from cs336_basics.bpe.unicode_classes import WHITE_SPACE, class_table

    classes = class_table()
    followed = [
        code
        for code in (*range(0xD800), *range(0xE000, 0x110000))
        if safe_cut(f"{chr(code)} ".encode()) == len(chr(code).encode())
    ]
    assert followed == [*range(0x21, 0x7F), *range(0xC0, 0x1000), *range(0x4000, 0xD000)]
    assert not (classes[followed] == WHITE_SPACE).any()


@pytest.mark.parametrize("line", ["слово\n", "λόγος ", "단어\r\n", "शब्द\t", "字\n"])
def test_word_lists_of_many_scripts_are_read_in_small_blocks(line):
    blocks = list(read_blocks(io.BytesIO(line.encode() * 5000), ["<|endoftext|>"], 1000))
    assert max(map(len, blocks)) < 2000
