"""dQ in Triton: each program owns a tile of queries and walks over the keys. `triton_backward.py` says more."""

import triton
import triton.language as tl

from cs336_systems.flash_attention.tile_sizes import BACKWARD_QUERIES, autotuned
from cs336_systems.flash_attention.triton_tiles import EVEN, LOG2_E, MASKED_SCORE_LOG2, key_borders, load_rows


@triton.jit
def _add_keys(
    grad_q: tl.tensor,
    q: tl.tensor,
    grad: tl.tensor,
    log_sum_exp: tl.tensor,
    row_sum: tl.tensor,
    K: tl.tensor,
    V: tl.tensor,
    stride_k: tl.tensor,
    stride_v: tl.tensor,
    queries: tl.tensor,
    start: tl.tensor,
    stop: tl.tensor,
    num_keys: tl.tensor,
    d: tl.tensor,
    scale: tl.tensor,
    MASKED: tl.constexpr,
    IS_CAUSAL: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Add to dQ of a tile of queries what the keys start … stop - 1 contribute; `log_sum_exp` is to the base 2."""
    offsets = tl.arange(0, BLOCK_K)
    dims = tl.arange(0, BLOCK_D)
    first_row = tl.cast(start, tl.int64) + offsets[:, None]
    k_pointers = K + first_row * stride_k + dims[None, :]
    v_pointers = V + first_row * stride_v + dims[None, :]
    for first_key in range(start, stop, BLOCK_K):
        keys = first_key + offsets
        inside = keys < num_keys
        k = load_rows(k_pointers, inside, dims < d, MASKED and not EVEN_K, not EVEN_D)
        v = load_rows(v_pointers, inside, dims < d, MASKED and not EVEN_K, not EVEN_D)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if MASKED:
            if IS_CAUSAL:
                scores = tl.where(queries[:, None] >= keys[None, :], scores, MASKED_SCORE_LOG2)
            if not EVEN_K:
                scores = tl.where(inside[None, :], scores, float("-inf"))
        probabilities = tl.exp2(scores - log_sum_exp[:, None])
        grad_probabilities = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        grad_scores = probabilities * (grad_probabilities - row_sum[:, None])
        grad_q = tl.dot(grad_scores.to(k.dtype), k, grad_q, input_precision=PRECISION)
        k_pointers += BLOCK_K * stride_k
        v_pointers += BLOCK_K * stride_v
    return grad_q


@autotuned(BACKWARD_QUERIES)
@triton.heuristics(EVEN)
@triton.jit(do_not_specialize=["tuning_length"])
def queries_kernel(
    Q: tl.tensor,
    K: tl.tensor,
    V: tl.tensor,
    GradOut: tl.tensor,
    LogSumExp: tl.tensor,
    RowSum: tl.tensor,
    GradQ: tl.tensor,
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
    stride_gqb: tl.tensor,
    stride_gqh: tl.tensor,
    stride_gq: tl.tensor,
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
    """dQ. Programs: tiles of queries, then heads, then the batch."""
    num_tiles = tl.cdiv(num_queries, BLOCK_Q)
    tile, head = tl.program_id(0) % num_tiles, tl.program_id(0) // num_tiles
    if IS_CAUSAL:
        tile = num_tiles - 1 - tile
    b, h = (head // num_heads).to(tl.int64), (head % num_heads).to(tl.int64)
    K += b * stride_kb + h * stride_kh
    V += b * stride_vb + h * stride_vh

    first_query = tile * BLOCK_Q
    queries = first_query + tl.arange(0, BLOCK_Q)
    dims = tl.arange(0, BLOCK_D)
    rows = queries.to(tl.int64)[:, None]
    query_inside, dim_inside = queries < num_queries, dims < d
    q_pointers = Q + b * stride_qb + h * stride_qh + rows * stride_q + dims[None, :]
    g_pointers = GradOut + b * stride_gb + h * stride_gh + rows * stride_g + dims[None, :]
    q = load_rows(q_pointers, query_inside, dim_inside, not EVEN_Q, not EVEN_D)
    grad = load_rows(g_pointers, query_inside, dim_inside, not EVEN_Q, not EVEN_D)
    per_query = head.to(tl.int64) * num_queries + queries
    log_sum_exp = tl.load(LogSumExp + per_query, mask=query_inside, other=0.0) * LOG2_E
    row_sum = tl.load(RowSum + per_query, mask=query_inside, other=0.0)
    grad_q = tl.zeros((BLOCK_Q, BLOCK_D), dtype=tl.float32)
    scale = softmax_scale * LOG2_E

    masked, stop = key_borders(first_query, num_keys, IS_CAUSAL, BLOCK_Q, BLOCK_K)
    grad_q = _add_keys(
        grad_q, q, grad, log_sum_exp, row_sum, K, V, stride_k, stride_v, queries, 0, masked, num_keys, d, scale,
        False, IS_CAUSAL, EVEN_K, EVEN_D, BLOCK_K, BLOCK_D, PRECISION,
    )  # fmt: skip
    if IS_CAUSAL or not EVEN_K:
        grad_q = _add_keys(
            grad_q, q, grad, log_sum_exp, row_sum, K, V, stride_k, stride_v, queries, masked, stop, num_keys, d, scale,
            True, IS_CAUSAL, EVEN_K, EVEN_D, BLOCK_K, BLOCK_D, PRECISION,
        )  # fmt: skip

    offsets = b * stride_gqb + h * stride_gqh + rows * stride_gq + dims[None, :]
    inside = query_inside[:, None] & dim_inside[None, :]
    tl.store(GradQ + offsets, (grad_q * softmax_scale).to(GradQ.dtype.element_ty), mask=inside)
