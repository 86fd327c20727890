"""The backward pass of FlashAttention-2 in Triton, in two passes without atomic additions.

With P = exp(S - L), the probabilities computed again from the log-sum-exp L (Dao 2023,
https://arxiv.org/abs/2307.08691, algorithm 2):

    D = rowsum(dO ∘ O)      dP = dO Vᵀ      dS = P ∘ (dP - D)
    dV = Pᵀ dO              dK = dSᵀ Q / sqrt(d)              dQ = dS K / sqrt(d)

A first kernel computes D. Then each program of `keys_kernel` owns a tile of keys and sums dK and dV over the queries;
each program of `queries_kernel` owns a tile of queries and sums dQ over the keys. P is computed twice, and in return
no program writes where another does: the result does not depend on the order of programs. (The paper's single pass
adds up dQ in memory with atomic additions.)

As in the forward pass, only tiles on the diagonal or at a sequence's end are masked, tiles that are hidden from all
their queries are not visited, and causal programs with the most work come first.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from cs336_systems.flash_attention.layout import as_four_dimensions
from cs336_systems.flash_attention.tile_sizes import (
    BACKWARD_KEYS,
    BACKWARD_QUERIES,
    autotuned,
    dot_precision,
    tuning_length,
)
from cs336_systems.flash_attention.triton_tiles import LOG2_E, MASKED_SCORE_LOG2, load_rows

_EVEN = {
    "EVEN_Q": lambda a: a["num_queries"] % a["BLOCK_Q"] == 0,
    "EVEN_K": lambda a: a["num_keys"] % a["BLOCK_K"] == 0,
}


@triton.jit
def row_sum_kernel(
    Out: tl.tensor,
    GradOut: tl.tensor,
    RowSum: tl.tensor,
    stride_ob: tl.tensor,
    stride_oh: tl.tensor,
    stride_o: tl.tensor,
    stride_gb: tl.tensor,
    stride_gh: tl.tensor,
    stride_g: tl.tensor,
    num_heads: tl.tensor,
    num_queries: tl.tensor,
    d: tl.tensor,
    BLOCK_Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """D = rowsum(dO ∘ O). Programs: tiles of queries, then heads, then the batch."""
    num_tiles = tl.cdiv(num_queries, BLOCK_Q)
    tile, head = tl.program_id(0) % num_tiles, tl.program_id(0) // num_tiles
    b, h = (head // num_heads).to(tl.int64), (head % num_heads).to(tl.int64)
    queries = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    rows = queries.to(tl.int64)[:, None]
    dims = tl.arange(0, BLOCK_D)
    inside = (queries < num_queries)[:, None] & (dims < d)[None, :]
    o_pointers = Out + b * stride_ob + h * stride_oh + rows * stride_o + dims[None, :]
    g_pointers = GradOut + b * stride_gb + h * stride_gh + rows * stride_g + dims[None, :]
    out = tl.load(o_pointers, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(g_pointers, mask=inside, other=0.0).to(tl.float32)
    tl.store(RowSum + head.to(tl.int64) * num_queries + queries, tl.sum(out * grad, 1), mask=queries < num_queries)


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
@triton.heuristics(_EVEN)
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
@triton.heuristics(_EVEN)
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

    masked, stop = num_keys, num_keys
    if IS_CAUSAL:
        masked = tl.minimum(num_keys, first_query + 1)
        stop = tl.minimum(num_keys, first_query + BLOCK_Q)
    masked = masked // BLOCK_K * BLOCK_K
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


def launch_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_sum_exp: Tensor,
    is_causal: bool,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
) -> None:
    """Write the gradients of Q, K and V into `grad_q`, `grad_k` and `grad_v`, the last two with the same strides.

    Args:
        grad_out: the gradient of the output; its last dimension, like those of all other tensors, is contiguous.
        q, k, v, is_causal: what `launch_forward` took.
        out, log_sum_exp: what it gave.
    """
    row_sum = torch.empty_like(log_sum_exp)
    tensors = (grad_out, q, k, v, out, grad_q, grad_k, grad_v)
    grad_out, q, k, v, out, grad_q, grad_k, grad_v = map(as_four_dimensions, tensors)
    batch, num_heads, num_queries, d = q.shape
    num_keys = k.shape[2]
    block_d = max(16, triton.next_power_of_2(d))
    # Both passes take these, then where they write.
    strides = [stride for x in (q, k, v, grad_out) for stride in x.stride()[:3]]
    sizes = (num_heads, num_queries, num_keys, d, 1 / math.sqrt(d), tuning_length(num_queries, num_keys))
    constants = {
        "IS_CAUSAL": is_causal,
        "EVEN_D": d == block_d,
        "BLOCK_D": block_d,
        "PRECISION": dot_precision(q.dtype),
    }
    rows = max(1, 2**13 // block_d)
    with torch.cuda.device_of(q):
        row_sum_kernel[(triton.cdiv(num_queries, rows) * batch * num_heads,)](
            out, grad_out, row_sum, *out.stride()[:3], *grad_out.stride()[:3], num_heads, num_queries, d,
            BLOCK_Q=rows, BLOCK_D=block_d,
        )  # fmt: skip
        keys_kernel[lambda meta: (triton.cdiv(num_keys, meta["BLOCK_K"]) * batch * num_heads,)](
            q, k, v, grad_out, log_sum_exp, row_sum, grad_k, grad_v, *strides, *grad_k.stride()[:3], *sizes, **constants
        )
        queries_kernel[lambda meta: (triton.cdiv(num_queries, meta["BLOCK_Q"]) * batch * num_heads,)](
            q, k, v, grad_out, log_sum_exp, row_sum, grad_q, *strides, *grad_q.stride()[:3], *sizes, **constants
        )
