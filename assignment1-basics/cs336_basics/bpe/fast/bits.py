"""Machine instructions that numba has no function for: the only place of this package that speaks LLVM.

`classify64` looks at 64 bytes at once and answers in bitmaps: bit i of a mask is 1 where byte i is in the class. The
compiler turns each comparison into a few vector instructions (AVX2, AVX-512 or NEON, whatever the machine has).

MEASUREMENT_PLACEHOLDER
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_INT64 = ir.IntType(64)
_GROUP = ir.VectorType(ir.IntType(8), 64)
NUM_MASKS = 6
"""`classify64` writes six masks: letter, number, white space, space, apostrophe, not ASCII."""


def _element_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to element `index` of a one-dimensional contiguous numba array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def load8(typing_context, text, position):  # noqa: ANN001, ANN201
    """load8(text: uint8[:], position: int64) -> uint64: the 8 bytes from `position`, the first one lowest."""

    def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        pointer = _element_pointer(context, builder, signature.args[0], *arguments)
        return builder.load(builder.bitcast(pointer, _INT64.as_pointer()), align=1)

    return types.uint64(text, types.int64), generate


@intrinsic
def trailing_zeros(typing_context, word):  # noqa: ANN001, ANN201
    """trailing_zeros(word: uint64) -> int64: the index of the lowest set bit; `word` must not be 0."""

    def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def prefetch(typing_context, table, row):  # noqa: ANN001, ANN201
    """prefetch(table: uint64[:, :], row: int64): ask the memory for a row that is going to be read soon."""

    def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        columns = builder.extract_value(array.shape, 1)
        pointer = builder.gep(array.data, [builder.mul(arguments[1], columns)])
        byte_pointer, int32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte_pointer], ir.FunctionType(ir.VoidType(), [byte_pointer, int32, int32, int32])
        )
        read, keep_in_all_caches, data = (ir.Constant(int32, value) for value in (0, 3, 1))
        builder.call(function, [builder.bitcast(pointer, byte_pointer), read, keep_in_all_caches, data])
        return context.get_dummy_value()

    return types.void(table, types.int64), generate


@intrinsic
def classify64(typing_context, text, position, masks, first):  # noqa: ANN001, ANN201
    """classify64(text: uint8[:], position: int64, masks: uint64[:], first: int64): masks of text[position:][:64].

    Writes `NUM_MASKS` words to masks[first:]: ASCII letters, ASCII digits, ASCII white space, the space, the
    apostrophe, and bytes of 128 and more. Bit i speaks of byte position + i.
    """

    def splat(value: int) -> ir.Constant:
        return ir.Constant(_GROUP, [value] * 64)

    def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        text_pointer = _element_pointer(context, builder, signature.args[0], *arguments[:2])
        mask_pointer = _element_pointer(context, builder, signature.args[2], *arguments[2:])
        group = builder.load(builder.bitcast(text_pointer, _GROUP.as_pointer()), align=1)

        def in_range(values: Any, low: int, count: int) -> Any:
            # One unsigned comparison: values below `low` wrap around to large numbers.
            return builder.icmp_unsigned("<", builder.sub(values, splat(low)), splat(count))

        def equal_to(character: str) -> Any:
            return builder.icmp_unsigned("==", group, splat(ord(character)))

        lower_case = builder.or_(group, splat(0x20))  # the letters' two cases differ in this bit
        classes = (
            in_range(lower_case, ord("a"), 26),
            in_range(group, ord("0"), 10),
            builder.or_(equal_to(" "), in_range(group, ord("\t"), 5)),
            equal_to(" "),
            equal_to("'"),
            builder.icmp_signed("<", group, splat(0)),
        )
        for column, members in enumerate(classes):
            mask = builder.bitcast(members, _INT64)
            builder.store(mask, builder.gep(mask_pointer, [ir.Constant(_INT64, column)]))
        return context.get_dummy_value()

    return types.void(text, types.int64, masks, types.int64), generate


@intrinsic
def equal64(typing_context, text, position, byte):  # noqa: ANN001, ANN201
    """equal64(text: uint8[:], position: int64, byte: uint8) -> uint64: bit i is 1 where text[position + i] == byte."""

    def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        pointer = _element_pointer(context, builder, signature.args[0], *arguments[:2])
        group = builder.load(builder.bitcast(pointer, _GROUP.as_pointer()), align=1)
        undefined, int32 = ir.Constant(_GROUP, ir.Undefined), ir.IntType(32)
        wanted = builder.insert_element(undefined, arguments[2], ir.Constant(int32, 0))
        wanted = builder.shuffle_vector(wanted, undefined, ir.Constant(ir.VectorType(int32, 64), [0] * 64))
        return builder.bitcast(builder.icmp_unsigned("==", group, wanted), _INT64)

    return types.uint64(text, types.int64, types.uint8), generate


def word_masks(length_limit: int) -> tuple[np.ndarray, np.ndarray]:
    """For n = 0 ... length_limit bytes: what to keep of the two 8-byte words that begin at a pre-token's first byte."""
    low = [(1 << (8 * min(n, 8))) - 1 for n in range(length_limit + 1)]
    high = [(1 << (8 * max(n - 8, 0))) - 1 for n in range(length_limit + 1)]
    return np.array(low, dtype=np.uint64), np.array(high, dtype=np.uint64)
