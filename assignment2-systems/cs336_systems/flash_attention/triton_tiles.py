"""What the kernels share: loading tiles, and their units."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
MASKED_SCORE_LOG2 = tl.constexpr(-1e6 * 1.4426950408889634)
"""`layout.MASKED_SCORE` in the kernels' units. They take powers of two, which the hardware has an instruction for, so
every score is multiplied by log2(e)."""

EVEN = {
    "EVEN_Q": lambda a: a["num_queries"] % a["BLOCK_Q"] == 0,
    "EVEN_K": lambda a: a["num_keys"] % a["BLOCK_K"] == 0,
}
"""Whether tiles fill the lengths, by the arguments of a kernel: then nothing at the sequences' ends is checked."""


@triton.jit
def load_rows(
    pointers: tl.tensor,
    row_inside: tl.tensor,
    column_inside: tl.tensor,
    CHECK_ROWS: tl.constexpr,
    CHECK_COLUMNS: tl.constexpr,
) -> tl.tensor:
    """Load a tile; what lies outside is 0. A check that is not needed costs nothing."""
    if CHECK_ROWS and CHECK_COLUMNS:
        tile = tl.load(pointers, mask=row_inside[:, None] & column_inside[None, :], other=0.0)
    elif CHECK_ROWS:
        tile = tl.load(pointers, mask=row_inside[:, None], other=0.0)
    elif CHECK_COLUMNS:
        tile = tl.load(pointers, mask=column_inside[None, :], other=0.0)
    else:
        tile = tl.load(pointers)
    return tile
