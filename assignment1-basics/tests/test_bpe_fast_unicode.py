"""The committed table of character classes against tiktoken, and the plain path's obedience to it."""

import numpy as np
import pytest
import regex
import tiktoken

from cs336_basics.bpe.pretokenize import GPT2_PATTERN, pretokens
from cs336_basics.bpe.unicode_classes import (
    LETTER,
    NUM_CODE_POINTS,
    NUMBER,
    OTHER,
    UNICODE_VERSION,
    WHITE_SPACE,
    class_of,
    class_table,
)

CODE_POINTS = [code for code in range(128, NUM_CODE_POINTS) if not 0xD800 <= code < 0xE000]


def glued_to(probe: str) -> list[bool]:
    """Whether tiktoken takes each of `CODE_POINTS` into one pre-token with the character before it.

    The only merges are of the probe with the byte that follows, so a merge shows that no border lies between.
    """
    merges = {bytes([ord(probe), byte]): 256 + byte for byte in range(128, 256)}
    ranks = {bytes([byte]): byte for byte in range(256)} | merges
    encoding = tiktoken.Encoding("probe", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    ids = encoding.encode_ordinary("".join(f" {probe}{chr(code)}\n" for code in CODE_POINTS))
    return [token_id >= 256 for token_id in ids if token_id == ord(probe) or token_id >= 256]


@pytest.mark.slow
def test_every_code_point_has_the_class_that_tiktoken_gives_it():
    table = class_table()
    for probe, number in (("x", LETTER), ("7", NUMBER), ("!", OTHER)):
        glued = np.array(glued_to(probe))
        assert len(glued) == len(CODE_POINTS)
        # White space is glued to nothing, so that all four classes are told apart.
        assert (glued == (table[CODE_POINTS] == number)).all()


def test_ascii_and_surrogates():
    ascii_characters = "".join(map(chr, range(128)))
    for pattern, number in (("[A-Za-z]", LETTER), ("[0-9]", NUMBER), ("[\t-\r ]", WHITE_SPACE)):
        expected = set(regex.findall(pattern, ascii_characters))
        assert {character for character in ascii_characters if class_of(character) == number} == expected
    assert not class_table()[0xD800:0xE000].any()


def test_the_two_ways_to_ask_agree():
    assert [class_of(chr(code)) for code in range(NUM_CODE_POINTS)] == class_table().tolist()


def test_the_plain_path_follows_the_table_where_regex_differs():
    table = class_table()
    newer = [code for code in CODE_POINTS if table[code] == OTHER and regex.match(r"[\p{L}\p{N}\s]", chr(code))]
    assert newer, "regex knows a later version of Unicode than the declared one"
    code_points = newer + CODE_POINTS[::50]
    for probe, number in (("x", LETTER), ("7", NUMBER), ("!", OTHER)):
        pieces = pretokens("".join(f" {probe}{chr(code)}\n" for code in code_points))
        glued = [piece[2:3] for piece in pieces if piece.startswith(f" {probe}")]
        assert glued == [chr(code) if table[code] == number else "" for code in code_points]


def test_characters_that_are_newer_than_the_declared_version_are_no_letters():
    assert UNICODE_VERSION == "16.0.0"
    newer = "\u088f"  # ARABIC LETTER NOON WITH RING ABOVE, of Unicode 17
    assert pretokens(f"ab{newer}cd 1") == ["ab", newer, "cd", " 1"]
    assert pretokens(f"it's {newer}'s{newer}!") == ["it", "'s", f" {newer}'", "s", f"{newer}!"]


def test_some_classes():
    table = class_table()
    for characters, expected in (
        ("aÉ中ʰ", LETTER),
        ("0½٣Ⅷ", NUMBER),
        (" \t\x85\u3000", WHITE_SPACE),
        ("_'\u0301\0", OTHER),
    ):
        assert [table[ord(character)] for character in characters] == [expected] * len(characters)
