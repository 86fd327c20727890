"""Which code points are letters, numbers and white space, for one declared version of Unicode.

GPT-2's pre-tokenizer asks three questions of a character: is it a letter (`\\p{L}`), a number (`\\p{N}`) or white space
(`\\s`)? The answers change from one Unicode version to the next: libraries built on different versions disagree on some
17,000 code points. The plain path gets its answers from the `regex` package, the fast path from the table of this
module, which was written from that same package, so both see the same Unicode. A test compares every code point.

The table is the file `unicode_classes.txt` beside this module: one line per range, `first last class` with the ends in
hexadecimal and the class as one of the letters L, N, W. After an upgrade of `regex` to a newer Unicode, rewrite it with

    python -m cs336_basics.bpe.unicode_classes

and set `UNICODE_VERSION` to the version the command prints.
"""

import importlib.metadata
import re
from bisect import bisect
from functools import cache
from operator import itemgetter
from pathlib import Path

import numpy as np

from cs336_basics.atomic_file import atomic_write

UNICODE_VERSION = "18.0.0"
"""The version of Unicode the table was made from: that of the `regex` package in the lock file."""

OTHER, LETTER, NUMBER, WHITE_SPACE = 0, 1, 2, 3
"""The classes, as stored in `class_table()`."""

NUM_CODE_POINTS = 0x110000
_TABLE_FILE = Path(__file__).with_name("unicode_classes.txt")
_LETTER_OF_CLASS = {LETTER: "L", NUMBER: "N", WHITE_SPACE: "W"}
_CLASS_OF_LETTER = {letter: number for number, letter in _LETTER_OF_CLASS.items()}


def class_table() -> np.ndarray:
    """Read the committed table: uint8 array of 0x110000 entries, the class of every code point (about 1 ms)."""
    table = np.zeros(NUM_CODE_POINTS, dtype=np.uint8)
    for first, last, number in _class_ranges():
        table[first : last + 1] = number
    return table


def class_of(character: str) -> int:
    """The class of one character, from the same table without its megabyte."""
    ranges = _class_ranges()
    place = bisect(ranges, ord(character), key=itemgetter(0)) - 1
    return ranges[place][2] if place >= 0 and ord(character) <= ranges[place][1] else OTHER


@cache
def _class_ranges() -> list[tuple[int, int, int]]:
    """(first code point, last code point, class), ascending."""
    lines = _TABLE_FILE.read_text(encoding="ascii").splitlines()
    fields = [line.split() for line in lines if not line.startswith("#")]
    return [(int(first, 16), int(last, 16), _CLASS_OF_LETTER[letter]) for first, last, letter in fields]


def regex_class_table() -> np.ndarray:
    """The same table, computed from the installed `regex` package (about a second)."""
    import regex

    # Surrogates are code points but not characters: no UTF-8 text holds one, so they stay OTHER.
    characters = [code for code in range(NUM_CODE_POINTS) if not 0xD800 <= code < 0xE000]
    text = "".join(map(chr, characters))
    code_points = np.array(characters)
    table = np.zeros(NUM_CODE_POINTS, dtype=np.uint8)
    for number, pattern in ((LETTER, r"\p{L}+"), (NUMBER, r"\p{N}+"), (WHITE_SPACE, r"\s+")):
        for match in regex.finditer(pattern, text):
            table[code_points[match.start() : match.end()]] = number
    return table


def regex_unicode_version() -> str:
    """The Unicode version that the installed `regex` package declares in its description."""
    metadata = importlib.metadata.metadata("regex")
    description = metadata.get("Description") or str(metadata.get_payload())
    found = re.search(r"supports Unicode (\d+\.\d+\.\d+)", description)
    return found.group(1) if found else "unknown"


def main() -> None:
    """Write `unicode_classes.txt` anew from the installed `regex` package."""
    table = regex_class_table()
    starts = np.flatnonzero(np.diff(table, prepend=255))
    ends = np.append(starts[1:], NUM_CODE_POINTS)
    version = regex_unicode_version()
    with atomic_write(_TABLE_FILE, "w") as file:
        file.write(f"# Letters (L), numbers (N), white space (W) of Unicode {version}; see unicode_classes.py\n")
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if table[start] != OTHER:
                file.write(f"{start:04X} {end - 1:04X} {_LETTER_OF_CLASS[int(table[start])]}\n")
    print(f"wrote {_TABLE_FILE} from Unicode {version}; UNICODE_VERSION says {UNICODE_VERSION}")


if __name__ == "__main__":
    main()
