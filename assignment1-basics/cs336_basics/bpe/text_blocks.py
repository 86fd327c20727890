"""Cutting a byte stream into blocks at places where the cut changes no pre-token and no special token.

Whoever works on a text in pieces (several processes, a file larger than memory, a stream) has to cut it somewhere, and
a cut at the wrong place changes the result: GPT-2's pattern glues one space to the word after it and looks one
character past white space, and a special token may hold white space itself. The places used here are provably safe:

- Between a visible character and ASCII white space: a pre-token that holds the former ends there, since within a
  visible pre-token only the first character can be a space; and no white space before the cut looks ahead across it.
  Visible are here the characters `!` to `~` and, by their bytes, three ranges without any white space: U+00C0 to U+07FF
  (lead bytes C3 to DF: Latin, Greek, Cyrillic, Hebrew, Arabic), U+0800 to U+0FFF (E0: the scripts of India) and U+4000
  to U+CFFF (E4 to EC: Chinese, most of Korean). U+0085, U+00A0 and all other white space lie outside.
- Between an ASCII letter or digit and ASCII punctuation, or a Chinese character and Chinese punctuation: a run of
  letters or numbers ends there, and no contraction goes on with punctuation.

In both cases no special token may lie across the cut, in any reading of the text: with none across it, the search for
the leftmost and longest finds the same special tokens on either side. Every place depends on bytes nearby only, so that
a block is cut without knowing the text before it. That the text is UTF-8 allows all of this on bytes: no ASCII byte is
part of a longer character, and a lead byte with all its later bytes is one, whatever malformed bytes stand before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import regex

BLOCK_SIZE = 1 << 20
"""Bytes per block where nothing else is said."""

# Searched from the right ("(?r)"), because the last safe place makes the largest block. Lead bytes E5-E9 are U+5000 to
# U+9FFF, all letters; the punctuation is U+3001, U+3002 and the full-width forms U+FF01 to U+FF0F.
_SAFE_PLACE = regex.compile(
    rb"(?r)(?:"
    rb"(?:[!-~]|[\xc3-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe4-\xec][\x80-\xbf]{2})(?=[\t-\r ])"
    rb"|[0-9A-Za-z](?=[!-/:-@\[-`{-~])"
    rb"|[\xe5-\xe9][\x80-\xbf]{2}(?=\xe3\x80[\x81\x82]|\xef\xbc[\x81-\x8f]))"
)

REPLACEMENT = "\ufffd".encode()
"""What a malformed sequence is read as."""


def safe_cut(data: bytes, special_tokens: Sequence[bytes] = ()) -> int:
    """The last place where `data`, the start of a longer text, can be cut; 0 where there is none.

    `data[:cut]` and everything from `cut` on, taken separately, give the pre-tokens and special tokens of the whole,
    whatever follows `data`.

    Args:
        data: UTF-8 text; it may end within a character, and it may hold malformed bytes.
        special_tokens: the special tokens as UTF-8.
    """
    reach = max(map(len, special_tokens), default=1) - 1
    end = max(len(data) - max(reach - 1, 0), 0)  # any special token across an earlier place is in sight, whole
    while match := _SAFE_PLACE.search(data, 0, end):
        cut = match.end()
        before, after = data[max(cut - reach, 0) : cut], data[cut : cut + reach]
        if not any(_lies_across(token, before, after) for token in special_tokens):
            return cut
        end = cut  # the look-ahead character must stay in sight, so the next place is at least one byte to the left
    return 0


def _lies_across(token: bytes, before: bytes, after: bytes) -> bool:
    if REPLACEMENT in token:  # then malformed bytes may be a part of it
        before, after = (part.decode(errors="replace").encode() for part in (before, after))
    size = len(token) - 1
    return token in before[max(len(before) - size, 0) :] + after[:size]


def cut_into_blocks(
    pieces: Iterable[bytes], special_tokens: Iterable[str] = (), block_size: int = BLOCK_SIZE
) -> Iterator[bytes]:
    """Join `pieces` and cut them again into blocks of about `block_size` bytes, at safe places only.

    Holds one block in memory; a block grows beyond `block_size` only where the text has no safe place for so long.
    """
    tokens = [token.encode() for token in special_tokens]
    pending: list[bytes] = []
    num_pending, enough = 0, block_size
    for piece in pieces:
        for start in range(0, len(piece), block_size):
            part = piece[start : start + block_size]
            pending.append(part)
            num_pending += len(part)
            if num_pending < enough:
                continue
            data = b"".join(pending)
            cut = safe_cut(data, tokens)
            if cut:
                yield data[:cut]
                data = data[cut:]
            pending, num_pending = [data], len(data)
            # Nowhere to cut: wait until the text has doubled, so that the search stays linear in its length.
            enough = max(block_size, 0 if cut else 2 * num_pending)
    if num_pending:
        yield b"".join(pending)


def read_blocks(file: IO[bytes], special_tokens: Iterable[str] = (), block_size: int = BLOCK_SIZE) -> Iterator[bytes]:
    """The rest of an open binary file as blocks, in constant memory."""
    return cut_into_blocks(iter(lambda: file.read(block_size), b""), special_tokens, block_size)


def decode_utf8(data: bytes) -> tuple[str, int]:
    """Decode bytes, each malformed sequence as one U+FFFD.

    Returns:
        The text and the number of malformed sequences.
    """
    try:
        return data.decode("utf-8"), 0
    except UnicodeDecodeError:
        text = data.decode("utf-8", errors="replace")
        return text, text.count("\ufffd") - data.count(REPLACEMENT)
