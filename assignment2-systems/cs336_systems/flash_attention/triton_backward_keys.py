"""dK and dV in Triton: each program owns a tile of keys and walks over the queries. `triton_backward.py` says more."""

import triton
import triton.language as tl

from cs336_systems.flash_attention.tile_sizes import BACKWARD_KEYS, autotuned
from cs336_systems.flash_attention.triton_tiles import EVEN, LOG2_E, load_rows


@triton.jit
def _add_queries(
    grad_k: tl.tensor,
    grad_v: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    Q: tl.tensor,
    GradOut: tl.tensor,
    LogSumExp: tl.tensor,
    RowSum: tl.tensor,
    stride_q: tl.tensor,
    stride_g: tl.tensor,
    keys: tl.tensor,
    start: tl.tensor,
    stop: tl.tensor,
    num_queries: tl.tensor,
    d: tl.tensor,
    scale: tl.tensor,
    DIAGONAL: tl.constexpr,
    CHECK_Q: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tuple:
    """Add to dK and dV of a tile of keys what the queries start … stop - 1 contribute; tiles are (keys, queries).

    Queries beyond the end are loaded as 0, with a gradient of 0, and so contribute nothing.
    """
    offsets = tl.arange(0, BLOCK_Q)
    dims = tl.arange(0, BLOCK_D)
    first_row = tl.cast(start, tl.int64) + offsets[:, None]
    q_pointers = Q + first_row * stride_q + dims[None, :]
    g_pointers = GradOut + first_row * stride_g + dims[None, :]
    for first_query in range(start, stop, BLOCK_Q):
        queries = first_query + offsets
        inside = queries < num_queries
        q = load_rows(q_pointers, inside, dims < d, CHECK_Q, not EVEN_D)
        if CHECK_Q:
            log_sum_exp = tl.load(LogSumExp + queries, mask=inside, other=0.0)
            row_sum = tl.load(RowSum + queries, mask=inside, other=0.0)
        else:
            log_sum_exp = tl.load(LogSumExp + queries)
            row_sum = tl.load(RowSum + queries)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        probabilities = tl.exp2(scores * scale - (log_sum_exp * LOG2_E)[None, :])
        if DIAGONAL:
            probabilities = tl.where(keys[:, None] <= queries[None, :], probabilities, 0.0)
        grad = load_rows(g_pointers, inside, dims < d, CHECK_Q, not EVEN_D)
        grad_v = tl.dot(probabilities.to(grad.dtype), grad, grad_v, input_precision=PRECISION)
        grad_probabilities = tl.dot(v, tl.trans(grad), input_precision=PRECISION)
        grad_scores = probabilities * (grad_probabilities - row_sum[None, :])
        grad_k = tl.dot(grad_scores.to(q.dtype), q, grad_k, input_precision=PRECISION)
        q_pointers += BLOCK_Q * stride_q
        g_pointers += BLOCK_Q * stride_g
    return grad_k, grad_v


@autotuned(BACKWARD_KEYS)
@triton.heuristics(EVEN)
@triton.jit(do_not_specialize=["tuning_length"])
def keys_kernel(
    Q: tl.tensor,
    K: tl.tensor,
    V: tl.tensor,
    GradOut: tl.tensor,
    LogSumExp: tl.tensor,
    RowSum: tl.tensor,
    GradK: tl.tensor,
    GradV: tl.tensor,
    stride_qb: tl.tensor,
    stride_qh: tl.tensor,
    stride_q: tl.tensor,
    stride_kb: tl.tensor,
    stride_kh: tl.tensor,
    stride_k: tl.tensor,
    stride_vb: tl.tensor,
    stride_vh: tl.tensor,
    stride_v: tl.tensor,
    stride_gb: tl.tensor,
    stride_gh: tl.tensor,
    stride_g: tl.tensor,
    stride_gkb: tl.tensor,
    stride_gkh: tl.tensor,
    stride_gk: tl.tensor,
    num_heads: tl.tensor,
    num_queries: tl.tensor,
    num_keys: tl.tensor,
    d: tl.tensor,
    softmax_scale: tl.tensor,
    tuning_length: tl.tensor,
    IS_CAUSAL: tl.constexpr,
    EVEN_Q: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """dK and dV, which share their strides. Programs: tiles of keys, then heads, then the batch."""
    num_tiles = tl.cdiv(num_keys, BLOCK_K)
    tile, head = tl.program_id(0) % num_tiles, tl.program_id(0) // num_tiles
    b, h = (head // num_heads).to(tl.int64), (head % num_heads).to(tl.int64)
    Q += b * stride_qb + h * stride_qh
    GradOut += b * stride_gb + h * stride_gh
    LogSumExp += head.to(tl.int64) * num_queries
    RowSum += head.to(tl.int64) * num_queries

    first_key = tile * BLOCK_K
    keys = first_key + tl.arange(0, BLOCK_K)
    dims = tl.arange(0, BLOCK_D)
    rows = keys.to(tl.int64)[:, None]
    key_inside, dim_inside = keys < num_keys, dims < d
    k_pointers = K + b * stride_kb + h * stride_kh + rows * stride_k + dims[None, :]
    v_pointers = V + b * stride_vb + h * stride_vh + rows * stride_v + dims[None, :]
    k = load_rows(k_pointers, key_inside, dim_inside, not EVEN_K, not EVEN_D)
    v = load_rows(v_pointers, key_inside, dim_inside, not EVEN_K, not EVEN_D)
    grad_k = tl.zeros((BLOCK_K, BLOCK_D), dtype=tl.float32)
    grad_v = tl.zeros((BLOCK_K, BLOCK_D), dtype=tl.float32)
    scale = softmax_scale * LOG2_E

    # Whole tiles of queries end at `whole`; those from `unmasked` on see every key of the tile.
    whole = num_queries // BLOCK_Q * BLOCK_Q
    unmasked = 0
    if IS_CAUSAL:
        diagonal = first_key // BLOCK_Q * BLOCK_Q
        unmasked = tl.minimum(
            tl.cdiv(first_key + BLOCK_K - 1, BLOCK_Q) * BLOCK_Q, tl.cdiv(num_queries, BLOCK_Q) * BLOCK_Q
        )
        grad_k, grad_v = _add_queries(
            grad_k, grad_v, k, v, Q, GradOut, LogSumExp, RowSum, stride_q, stride_g, keys, diagonal, unmasked,
            num_queries, d, scale, True, not EVEN_Q, EVEN_D, BLOCK_Q, BLOCK_D, PRECISION,
        )  # fmt: skip
    grad_k, grad_v = _add_queries(
        grad_k, grad_v, k, v, Q, GradOut, LogSumExp, RowSum, stride_q, stride_g, keys, unmasked, whole,
        num_queries, d, scale, False, False, EVEN_D, BLOCK_Q, BLOCK_D, PRECISION,
    )  # fmt: skip
    if not EVEN_Q:
        grad_k, grad_v = _add_queries(
            grad_k, grad_v, k, v, Q, GradOut, LogSumExp, RowSum, stride_q, stride_g, keys,
            tl.maximum(unmasked, whole), num_queries,
            num_queries, d, scale, False, True, EVEN_D, BLOCK_Q, BLOCK_D, PRECISION,
        )  # fmt: skip

    offsets = b * stride_gkb + h * stride_gkh + rows * stride_gk + dims[None, :]
    inside = key_inside[:, None] & dim_inside[None, :]
    tl.store(GradK + offsets, (grad_k * softmax_scale).to(GradK.dtype.element_ty), mask=inside)
    tl.store(GradV + offsets, grad_v.to(GradV.dtype.element_ty), mask=inside)
