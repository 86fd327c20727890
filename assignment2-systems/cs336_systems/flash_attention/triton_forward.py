"""The forward pass of FlashAttention-2 in Triton (Dao 2023, https://arxiv.org/abs/2307.08691, algorithm 1).

One program computes one tile of queries of one head: it keeps the queries, the running maximum and sum, and the output
in registers, and walks over the tiles of keys and values. `tiled.py` says which numbers it keeps and why.

Only tiles that a bound of the sequence or the diagonal of the causal mask passes through are masked; tiles above the
diagonal are never visited. Causal programs with the most keys come first in the grid, so that no long one starts last.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from cs336_systems.flash_attention.layout import as_four_dimensions
from cs336_systems.flash_attention.tile_sizes import FORWARD, autotuned, dot_precision, tuning_length
from cs336_systems.flash_attention.triton_tiles import EVEN, LN_2, LOG2_E, MASKED_SCORE_LOG2, key_borders, load_rows


@triton.jit
def _attend(
    weighted: tl.tensor,
    total: tl.tensor,
    maximum: tl.tensor,
    q: tl.tensor,
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
) -> tuple:
    """Let the queries attend to the keys start … stop - 1, `start` a multiple of the tile."""
    offsets = tl.arange(0, BLOCK_K)
    dims = tl.arange(0, BLOCK_D)
    first_row = tl.cast(start, tl.int64) + offsets[:, None]
    k_pointers = K + first_row * stride_k + dims[None, :]
    v_pointers = V + first_row * stride_v + dims[None, :]
    for first_key in range(start, stop, BLOCK_K):
        keys = first_key + offsets
        inside = keys < num_keys
        k = load_rows(k_pointers, inside, dims < d, MASKED and not EVEN_K, not EVEN_D)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if MASKED:
            scores = scores * scale
            if IS_CAUSAL:
                scores = tl.where(queries[:, None] >= keys[None, :], scores, MASKED_SCORE_LOG2)
            if not EVEN_K:
                scores = tl.where(inside[None, :], scores, float("-inf"))
            new_maximum = tl.maximum(maximum, tl.max(scores, 1))
            probabilities = tl.exp2(scores - new_maximum[:, None])
        else:
            # The same, with the scaling folded into one multiply-add per score.
            new_maximum = tl.maximum(maximum, tl.max(scores, 1) * scale)
            probabilities = tl.exp2(scores * scale - new_maximum[:, None])
        rescale = tl.exp2(maximum - new_maximum)
        total = total * rescale + tl.sum(probabilities, 1)
        weighted = weighted * rescale[:, None]
        v = load_rows(v_pointers, inside, dims < d, MASKED and not EVEN_K, not EVEN_D)
        weighted = tl.dot(probabilities.to(v.dtype), v, weighted, input_precision=PRECISION)
        maximum = new_maximum
        k_pointers += BLOCK_K * stride_k
        v_pointers += BLOCK_K * stride_v
    return weighted, total, maximum


@autotuned(FORWARD)
@triton.heuristics(EVEN)
@triton.jit(do_not_specialize=["tuning_length"])
def forward_kernel(
    Q: tl.tensor,
    K: tl.tensor,
    V: tl.tensor,
    Out: tl.tensor,
    LogSumExp: tl.tensor,
    stride_qb: tl.tensor,
    stride_qh: tl.tensor,
    stride_q: tl.tensor,
    stride_kb: tl.tensor,
    stride_kh: tl.tensor,
    stride_k: tl.tensor,
    stride_vb: tl.tensor,
    stride_vh: tl.tensor,
    stride_v: tl.tensor,
    stride_ob: tl.tensor,
    stride_oh: tl.tensor,
    stride_o: tl.tensor,
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
    """Programs: tiles of queries, then heads, then the batch."""
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
    q_pointers = Q + b * stride_qb + h * stride_qh + rows * stride_q + dims[None, :]
    q = load_rows(q_pointers, queries < num_queries, dims < d, not EVEN_Q, not EVEN_D)
    weighted = tl.zeros((BLOCK_Q, BLOCK_D), dtype=tl.float32)
    total = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    maximum = tl.full((BLOCK_Q,), float("-inf"), dtype=tl.float32)
    scale = softmax_scale * LOG2_E

    masked, stop = key_borders(first_query, num_keys, IS_CAUSAL, BLOCK_Q, BLOCK_K)
    weighted, total, maximum = _attend(
        weighted, total, maximum, q, K, V, stride_k, stride_v, queries, 0, masked, num_keys, d, scale,
        False, IS_CAUSAL, EVEN_K, EVEN_D, BLOCK_K, BLOCK_D, PRECISION,
    )  # fmt: skip
    if IS_CAUSAL or not EVEN_K:
        weighted, total, maximum = _attend(
            weighted, total, maximum, q, K, V, stride_k, stride_v, queries, masked, stop, num_keys, d, scale,
            True, IS_CAUSAL, EVEN_K, EVEN_D, BLOCK_K, BLOCK_D, PRECISION,
        )  # fmt: skip

    out = weighted / total[:, None]
    log_sum_exp = (maximum + tl.log2(total)) * LN_2
    lse_pointers = LogSumExp + head.to(tl.int64) * num_queries + queries
    out_pointers = Out + b * stride_ob + h * stride_oh + rows * stride_o + dims[None, :]
    row_inside, inside = queries < num_queries, (queries < num_queries)[:, None] & (dims < d)[None, :]
    tl.store(lse_pointers, log_sum_exp, mask=row_inside)
    tl.store(out_pointers, out.to(Out.dtype.element_ty), mask=inside)


def launch_forward(q: Tensor, k: Tensor, v: Tensor, is_causal: bool, out: Tensor, log_sum_exp: Tensor) -> None:
    """Write output and log-sum-exp of attention into `out` (…, queries, d) and `log_sum_exp` (…, queries).

    Args:
        q, k, v: of the same shapes and layouts as in `TritonFlashAttention`, with at least one query and one key; the
            last dimension is contiguous.
    """
    q, k, v, out = map(as_four_dimensions, (q, k, v, out))
    batch, num_heads, num_queries, d = q.shape
    num_keys = k.shape[2]
    block_d = max(16, triton.next_power_of_2(d))
    with torch.cuda.device_of(q):
        forward_kernel[lambda meta: (triton.cdiv(num_queries, meta["BLOCK_Q"]) * batch * num_heads,)](
            q, k, v, out, log_sum_exp, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
            num_heads, num_queries, num_keys, d, 1 / math.sqrt(d), tuning_length(num_queries, num_keys),
            IS_CAUSAL=is_causal, EVEN_D=d == block_d, BLOCK_D=block_d, PRECISION=dot_precision(q.dtype),
        )  # fmt: skip
