"""Which code points are letters, numbers and white space, for one declared version of Unicode.

GPT-2's pre-tokenizer asks three questions of a character: is it a letter (`\\p{L}`), a number (`\\p{N}`) or white space
(`\\s`)? The answers change from one Unicode version to the next: the `regex` package knows 17,480 letters and numbers
that tiktoken and Hugging Face's tokenizers, built on an older version, do not. Ids must not depend on what happens to
be installed, so both our paths follow the table of this module. It is of Unicode 16, the version of tiktoken and
Hugging Face, whose ids ours are to equal on every text; a test asks tiktoken about every code point.

The table is the file `unicode_classes.txt` beside this module: one line per range, `first last class` with the ends in
hexadecimal and the class as one of the letters L, N, W. It is written from the Unicode character database by

    uv run --with unicodedata2==16.0.0 python cs336_basics/bpe/unicode_classes.py
"""

from bisect import bisect
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from cs336_basics.atomic_file import atomic_write

UNICODE_VERSION = "16.0.0"
"""The version of Unicode the table was made from."""

OTHER, LETTER, NUMBER, WHITE_SPACE = 0, 1, 2, 3
"""The classes, as stored in `class_table()`."""

NUM_CODE_POINTS = 0x110000
_TABLE_FILE = Path(__file__).with_name("unicode_classes.txt")
_LETTER_OF_CLASS = {LETTER: "L", NUMBER: "N", WHITE_SPACE: "W"}
_CLASS_OF_LETTER = {letter: number for number, letter in _LETTER_OF_CLASS.items()}

# Unicode's property White_Space, which is no category. It has not changed since version 6.3.
_WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


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


def main() -> None:
    """Write `unicode_classes.txt` anew from the Unicode character database."""
    import unicodedata2  # the database of a chosen version, where the standard library has that of the Python version

    if unicodedata2.unidata_version != UNICODE_VERSION:
        raise SystemExit(f"unicodedata2 is of Unicode {unicodedata2.unidata_version}, not {UNICODE_VERSION}")

    def class_letter(code_point: int) -> str:
        category = unicodedata2.category(chr(code_point))[0]
        return "W" if chr(code_point) in _WHITE_SPACE else category if category in "LN" else ""

    with atomic_write(_TABLE_FILE, "w") as file:
        file.write(
            f"# Letters (L), numbers (N), white space (W) of Unicode {UNICODE_VERSION}; see unicode_classes.py\n"
        )
        for letter, group in groupby(range(NUM_CODE_POINTS), key=class_letter):
            code_points = list(group)
            if letter:
                file.write(f"{code_points[0]:04X} {code_points[-1]:04X} {letter}\n")


if __name__ == "__main__":
    main()
