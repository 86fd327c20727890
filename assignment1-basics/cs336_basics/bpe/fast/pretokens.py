r"""Where a new pre-token begins, for GPT-2's pattern, as a bitmap: bit i is 1 where a pre-token begins at byte i.

The pattern `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` cuts a text into runs of letters,
numbers, other characters and white space. Said as rules about beginnings:

- a run of letters, numbers or others begins a pre-token, unless a space stands before it: then the space does;
- a run of white space begins one at its first character; if something other than white space follows the run, its
  last character begins one too: `\s+(?!\S)` gives that last character back, for ` ?\p{L}+` to take if it is a space;
- `'s 'd 'm 't 'll 've 're` where a pre-token begins with the apostrophe are pre-tokens of their own.

All but the last are relations between neighboring bytes, so they are computed on 64 bytes at a time with shifts and
ands of the class masks (`bits.classify64`). Text beyond ASCII is decoded character by character to complete the masks.
A special token is a wall: it belongs to no class, and counts as white space or the end for the rule `(?!\S)`.
"""

import numpy as np

from ..unicode_classes import WHITE_SPACE
from .bits import NUM_MASKS, classify64, trailing_zeros
from .jit import kernel

LETTER_MASK, NUMBER_MASK, WHITE_SPACE_MASK, SPACE_MASK, APOSTROPHE_MASK, NOT_ASCII_MASK = range(NUM_MASKS)
WALL = NOT_ASCII_MASK  # once the text is decoded, this column is used again for the bytes of special tokens
ZERO, ONE, TOP_BIT = np.uint64(0), np.uint64(1), np.uint64(63)
_S, _D, _M, _T, _L, _V, _R, _E = b"sdmtlvre"  # numbers: strings in a kernel cost seconds of compilation
MALFORMED, ALL_NARROW, HAS_WIDE_WHITE_SPACE = -1, 0, 1


@kernel
def _bit(masks: np.ndarray, column: int, offset: int) -> bool:
    """Bit `offset` of a mask that runs over all groups."""
    return (masks[(offset >> 6) * NUM_MASKS + column] >> np.uint64(offset & 63)) & ONE != ZERO


@kernel
def decode_character(text: np.ndarray, position: int, end: int) -> tuple[int, int]:
    """(code point, bytes) of the character beyond ASCII at `position`; (0, 0) if it is not well-formed UTF-8."""
    lead = np.int64(text[position])
    if lead < 0xC2 or lead > 0xF4:
        return 0, 0
    size = 2 if lead < 0xE0 else (3 if lead < 0xF0 else 4)
    if position + size > end:
        return 0, 0
    code_point = lead & (0x7F >> size)
    for i in range(1, size):
        follower = np.int64(text[position + i])
        if follower & 0xC0 != 0x80:
            return 0, 0
        code_point = code_point << 6 | follower & 0x3F
    # Longer than need be, a surrogate, or beyond the last code point.
    if (
        (size == 3 and (code_point < 0x800 or 0xD800 <= code_point < 0xE000))
        or (size == 4 and code_point < 0x10000)
        or code_point > 0x10FFFF
    ):
        return 0, 0
    return code_point, size


@kernel
def _complete_masks(
    text: np.ndarray, begin: int, end: int, num_groups: int, class_table: np.ndarray, masks: np.ndarray
) -> int:
    """Add the characters beyond ASCII to the masks: every byte of a character gets the character's class."""
    has_wide_white_space = ALL_NARROW
    character_end = begin
    for group in range(num_groups):
        row = group * NUM_MASKS
        pending = masks[row + NOT_ASCII_MASK]
        while pending != ZERO:
            offset = trailing_zeros(pending)
            pending &= pending - ONE
            position = begin + (group << 6) + offset
            if position < character_end:
                continue  # a later byte of a character already seen
            code_point, size = decode_character(text, position, end)
            if size == 0:
                return MALFORMED
            character_end = position + size
            character_class = np.int64(class_table[code_point])
            if character_class != 0:
                column = row + character_class - 1
                bits = (ONE << np.uint64(size)) - ONE
                masks[column] |= bits << np.uint64(offset)
                if offset + size > 64:
                    masks[column + NUM_MASKS] |= bits >> np.uint64(64 - offset)
                if character_class == WHITE_SPACE:
                    has_wide_white_space = HAS_WIDE_WHITE_SPACE
    return has_wide_white_space


@kernel
def _build_walls(begin: int, num_groups: int, wall_at: np.ndarray, wall_length: np.ndarray, masks: np.ndarray) -> None:
    """Take the bytes of special tokens out of all classes and put them into the column WALL."""
    for group in range(num_groups):
        masks[group * NUM_MASKS + WALL] = ZERO
    for k in range(wall_at.shape[0]):
        first = wall_at[k] - begin
        for offset in range(first, first + wall_length[k]):
            row = (offset >> 6) * NUM_MASKS
            bit = ONE << np.uint64(offset & 63)
            for column in range(WALL):
                masks[row + column] &= ~bit
            masks[row + WALL] |= bit


@kernel
def _starts_from_masks(num_groups: int, masks: np.ndarray, starts: np.ndarray) -> None:
    """The rules on neighboring bytes. `x << 1 | carry` has bit i set where the byte before i is in x."""
    letter_carry = number_carry = other_carry = space_carry = white_carry = ZERO
    for group in range(num_groups):
        row = group * NUM_MASKS
        letter, number, white = masks[row + LETTER_MASK], masks[row + NUMBER_MASK], masks[row + WHITE_SPACE_MASK]
        space, wall = masks[row + SPACE_MASK], masks[row + WALL]
        other = ~(letter | number | white | wall)
        if group + 1 < num_groups:
            next_is_white = (masks[row + NUM_MASKS + WHITE_SPACE_MASK] | masks[row + NUM_MASKS + WALL]) & ONE
        else:
            next_is_white = ONE  # the end of the text
        white_follows = ((white | wall) >> ONE) | (next_is_white << TOP_BIT)
        run_goes_on = (
            (letter & ((letter << ONE) | letter_carry))
            | (number & ((number << ONE) | number_carry))
            | (other & ((other << ONE) | other_carry))
        )
        after_space = (space << ONE) | space_carry
        after_white = (white << ONE) | white_carry
        starts[group] = ((letter | number | other) & ~run_goes_on & ~after_space) | (
            white & ~(after_white & white_follows)
        )
        letter_carry, number_carry, other_carry = letter >> TOP_BIT, number >> TOP_BIT, other >> TOP_BIT
        space_carry, white_carry = space >> TOP_BIT, white >> TOP_BIT


@kernel
def _mend_wide_white_space(text: np.ndarray, begin: int, end: int, masks: np.ndarray, starts: np.ndarray) -> None:
    """White space of several bytes: redo its rule by characters, as the one on bytes would cut inside one."""
    length = end - begin
    for group in range((length + 63) >> 6):
        pending = masks[group * NUM_MASKS + WHITE_SPACE_MASK]
        while pending != ZERO:
            bit = pending & (ZERO - pending)
            offset = (group << 6) + trailing_zeros(pending)
            pending &= pending - ONE
            if offset >= length:
                break
            byte = text[begin + offset]
            if 0x80 <= byte < 0xC0:
                starts[group] &= ~bit  # inside a character
                continue
            size = 1 if byte < 0x80 else (2 if byte < 0xE0 else 3)  # no white space takes four bytes
            after = offset + size
            white_before = offset > 0 and _bit(masks, WHITE_SPACE_MASK, offset - 1)
            white_after = after >= length or _bit(masks, WHITE_SPACE_MASK, after) or _bit(masks, WALL, after)
            if white_before and white_after:
                starts[group] &= ~bit
            else:
                starts[group] |= bit


@kernel
def _contraction_length(text: np.ndarray, position: int, end: int) -> int:
    """Bytes of 's 'd 'm 't 'll 've 're at the apostrophe at `position`, or 0."""
    if position + 1 >= end:
        return 0
    first = text[position + 1]
    if first in (_S, _D, _M, _T):
        return 2
    if position + 2 >= end:
        return 0
    second = text[position + 2]
    if (first == _L and second == _L) or (first in (_V, _R) and second == _E):
        return 3
    return 0


@kernel
def _set_piece(starts: np.ndarray, first: int, size: int, length: int) -> None:
    """Make the bytes first ... first + size - 1 one pre-token, and let another begin after it."""
    starts[first >> 6] |= ONE << np.uint64(first & 63)
    after = first + size
    for offset in range(first + 1, after):
        starts[offset >> 6] &= ~(ONE << np.uint64(offset & 63))
    if after < length:
        starts[after >> 6] |= ONE << np.uint64(after & 63)


@kernel
def _cut_contractions(text: np.ndarray, begin: int, end: int, masks: np.ndarray, starts: np.ndarray) -> None:
    """Make contractions pre-tokens of their own; from left to right, as one may begin where another ends."""
    for group in range((end - begin + 63) >> 6):
        row = group * NUM_MASKS
        pending = masks[row + APOSTROPHE_MASK]
        while pending & starts[group] != ZERO:
            offset = trailing_zeros(pending & starts[group])
            pending &= ~((ONE << np.uint64(offset)) | ((ONE << np.uint64(offset)) - ONE))
            offset += group << 6
            size = _contraction_length(text, begin + offset, end)
            inside_one_text = size > 0
            for i in range(1, size):
                inside_one_text = inside_one_text and not _bit(masks, WALL, offset + i)
            if inside_one_text:
                _set_piece(starts, offset, size, end - begin)


@kernel
def find_pretokens(
    text: np.ndarray,
    begin: int,
    end: int,
    class_table: np.ndarray,
    wall_at: np.ndarray,
    wall_length: np.ndarray,
    masks: np.ndarray,
    starts: np.ndarray,
) -> bool:
    """Fill the bitmap `starts` for text[begin:end]; False if the text is not well-formed UTF-8.

    Args:
        text: uint8, readable for at least 64 bytes beyond `end`.
        begin, end: the piece; a pre-token must begin at `begin`, and none may reach over `end`.
        class_table: `unicode_classes.class_table()`.
        wall_at, wall_length: position in `text` and bytes of the special tokens in this piece.
        masks: uint64, scratch: `NUM_MASKS` words for each 64 bytes, and `NUM_MASKS` more.
        starts: uint64, one word for each 64 bytes: bit i of word k speaks of byte begin + 64 k + i.
    """
    length = end - begin
    num_groups = (length + 63) >> 6
    any_not_ascii = ZERO
    for group in range(num_groups):
        classify64(text, begin + (group << 6), masks, group * NUM_MASKS)
        any_not_ascii |= masks[group * NUM_MASKS + NOT_ASCII_MASK]
    for column in range(NUM_MASKS):
        masks[num_groups * NUM_MASKS + column] = ZERO
    rest = np.uint64(length & 63)
    if rest:  # beyond the end there is only white space
        inside = (ONE << rest) - ONE
        row = (num_groups - 1) * NUM_MASKS
        for column in range(NUM_MASKS):
            masks[row + column] &= inside
        masks[row + WHITE_SPACE_MASK] |= ~inside
    white_space = ALL_NARROW
    if any_not_ascii != ZERO:
        white_space = _complete_masks(text, begin, end, num_groups, class_table, masks)
        if white_space == MALFORMED:
            return False
    _build_walls(begin, num_groups, wall_at, wall_length, masks)
    _starts_from_masks(num_groups, masks, starts)
    if white_space == HAS_WIDE_WHITE_SPACE:
        _mend_wide_white_space(text, begin, end, masks, starts)
    if length > 0:
        starts[0] |= ONE
    _cut_contractions(text, begin, end, masks, starts)
    for k in range(wall_at.shape[0]):
        _set_piece(starts, wall_at[k] - begin, wall_length[k], length)
    if rest:
        starts[num_groups - 1] &= (ONE << rest) - ONE
    return True
