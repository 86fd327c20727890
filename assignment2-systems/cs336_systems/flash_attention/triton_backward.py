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
from cs336_systems.flash_attention.tile_sizes import dot_precision, tuning_length
from cs336_systems.flash_attention.triton_backward_keys import keys_kernel
from cs336_systems.flash_attention.triton_backward_queries import queries_kernel


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
