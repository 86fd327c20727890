"""What the kernels share: loading tiles, the keys that a tile of queries sees, and their units."""

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


@triton.jit
def key_borders(
    first_query: tl.tensor,
    num_keys: tl.tensor,
    IS_CAUSAL: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Up to the first, every query of a tile sees every key, in whole tiles; from the second on, none sees any."""
    masked, stop = num_keys, num_keys
    if IS_CAUSAL:
        masked = tl.minimum(num_keys, first_query + 1)
        stop = tl.minimum(num_keys, first_query + BLOCK_Q)
    return masked // BLOCK_K * BLOCK_K, stop
