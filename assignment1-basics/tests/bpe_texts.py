"""Awkward texts for the tests of BPE, the words the `regex` module finds in them, and an oracle for the merges."""

from collections import Counter
from itertools import pairwise

import regex
from hypothesis import strategies as st

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
END = "<|endoftext|>"
UNICODE_SPACES = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
NO_SPACES = "\u200b\ufeff\x1c\x1d\x1e\x1f"
"""These are no white space, though they look like it or Python's `str.split` takes them for it."""

MALFORMED = [
    b"\xff",  # never a byte of UTF-8
    b"\x80",  # a later byte without a first one
    b"\xc3",  # cut short, of two
    b"\xe2\x80",  # of three
    b"\xf0\x9f\x98",  # of four
    b"\xc0\x80",  # longer than need be
    b"\xe0\x80\xa0",
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond the last code point
    b"\xe2\x80\x80\x80",  # a space and a byte too many
]
WELL_FORMED = [
    *"abe1! '.",
    *UNICODE_SPACES,
    *("the", "ab", " ab", "  ", "\r\n", "\0", "\x1c", "12", "é", "e\u0301", "ñandú", "中文", "。", "½", "٣", "Ⅷ", "_"),
    *("'s", "'ll", "'re", "'ve", "''", "'S", "don't", "\U0001f600", "\U0001f469\u200d\U0001f4bb", "\ufffd", "\ufeff"),
    *(END, "<|", "<|end", "a b", "x y z", "<|end|><|end|>"),
]
SPECIAL_TOKENS = [
    [],
    [END],
    ["<|end|>", "<|end|><|end|>", END],
    ["a b", "x y z", "<|"],
    ["\ufffd", "a \ufffd"],
    ["ab", "é "],
    [" ", "\n", "'s"],
]

well_formed_texts = st.lists(st.sampled_from(WELL_FORMED), max_size=60).map("".join)
texts = st.lists(st.sampled_from([*(piece.encode() for piece in WELL_FORMED), *MALFORMED]), max_size=60).map(b"".join)
texts_full_of_special_tokens = st.lists(
    st.sampled_from([END, "<|end|>", "<|", "a", " ", "x y z", "é", "\ufffd"]).map(str.encode)
    | st.sampled_from([b"\xe2\x80"]),
    max_size=20,
).map(b"".join)
special_tokens = st.sampled_from(SPECIAL_TOKENS)
tail_sizes = st.sampled_from([1, 13, 15, 17, 20, 1 << 14])
block_sizes = st.sampled_from([1, 7, 64, 1000, 1 << 22])
chunk_sizes = st.sampled_from([8, 64, 200, 16384])

AWKWARD = {
    "empty": b"",
    "one byte": b"x",
    "one newline": b"\n",
    "only spaces": b" " * 300,
    "white space only": b" \n\n  \t ",
    "lone CR and LF": b"a\rb\nc\n\rd\r\r\n\n" * 4,
    "CRLF": b"one\r\ntwo\r\n\r\nthree \r\n" * 20,
    "NUL": b"a\0b\0\0\0 \0c \0\0\0" * 20,
    "byte-order mark": b"\xef\xbb\xbfword word \xef\xbb\xbfword",
    "contractions": b"'s 'll we'll'd don't 's's ''s 'sa 'reel 'r 'l ' 'S I'LL o'clock 're're" * 9,
    "emoji": "\U0001f600\U0001f600 \U0001f469\u200d\U0001f4bb x\U0001f600 ".encode() * 30,
    "combining marks": "e\u0301e\u0301 n\u0303 a\u0301\u0302\u0303 e\u0301 ".encode() * 30,
    "all spaces": "".join(f"a{s}b{s}{s} c{s} \n{s}d {s}e" for s in NO_SPACES + UNICODE_SPACES).encode() * 3,
    "repeated": b"abab" * 5000,
    "runs": b"a" * 37 + b" " + b"a" * 23 + b" ababababab abababa aabaabaab",
    "numbers": "1 12 123 1½ ٣٤ ⅷ 12a3".encode() * 2,
    "many scripts": "слово и дело\nλόγος שלום\tहिन्दी ประเทศไทย\n한국어 中文 字\u1680x".encode() * 30,
    "long words": b"".join(b"w" * length + b" " for length in range(1, 150)) * 2,
    "malformed": b" a".join(MALFORMED) + b"".join(MALFORMED) * 5 + b"end",
    "Chinese without white space": "今天天气很好。我们去公园,".encode() * 300,
}


def regex_words(data: bytes, specials: list[str]) -> Counter[bytes]:
    """How often each pre-token occurs, straight from the definition."""
    text = data.decode(errors="replace")
    pieces = [text]
    if specials:
        longest_first = sorted(specials, key=len, reverse=True)
        pieces = regex.split("|".join(map(regex.escape, longest_first)), text)
    return Counter(match.group().encode() for piece in pieces for match in regex.finditer(PATTERN, piece))


def oracle_merges(words: Counter[bytes], num_merges: int) -> list[tuple[bytes, bytes]]:
    """A token is its byte string; the pair with the highest (count, left bytes, right bytes) is merged."""
    counts = Counter({tuple(bytes([byte]) for byte in word): count for word, count in words.items()})
    merges = []
    while len(merges) < num_merges:
        pairs = Counter()
        for word, count in counts.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged_counts = Counter()
        for word, count in counts.items():
            merged, i = [], 0
            while i < len(word):
                size = 2 if word[i : i + 2] == best else 1
                merged.append(b"".join(word[i : i + size]))
                i += size
            merged_counts[tuple(merged)] += count
        counts = merged_counts
    return merges
