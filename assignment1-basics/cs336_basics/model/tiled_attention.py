"""Exact attention in tiles small enough for a CPU's cache, with its own backward pass.

Plain attention holds a (queries, keys) matrix per head three or four times over until the backward pass. Here only one
number per query is kept, the log-sum-exp of its scores, and the probabilities are computed again tile by tile: the
scheme of FlashAttention-2 (Dao 2023, https://arxiv.org/abs/2307.08691, algorithm 2), with whole rows of keys per tile,
so that no running maximum is needed. A causal tile stops at its last query's key: the upper triangle is not computed.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cs336_basics.model.functional import upcast

QUERIES_PER_TILE = 64


def _tiles(num_queries: int, num_keys: int, is_causal: bool) -> Iterator[tuple[slice, slice]]:
    """Pairs (queries, keys those queries may attend to); the last query stands at the last key."""
    for start in range(0, num_queries, QUERIES_PER_TILE):
        stop = min(start + QUERIES_PER_TILE, num_queries)
        yield slice(start, stop), slice(0, num_keys - num_queries + stop if is_causal else num_keys)


def _future(device: torch.device) -> Bool[Tensor, "tile tile"]:
    """True where, within one tile, a key comes after a query."""
    return torch.ones(QUERIES_PER_TILE, QUERIES_PER_TILE, dtype=torch.bool, device=device).triu(1)


def _hide_future(scores: Tensor, future: Tensor) -> None:
    """Set the scores of keys after a query to -inf; the tile's last query stands at its last key."""
    queries, keys = scores.shape[-2:]
    # Only the last `queries` columns hold any key that comes after a query.
    scores[..., keys - queries :].masked_fill_(future[:queries, :queries], -math.inf)


def _empty_like_sequence(x: Tensor) -> Tensor:
    """An empty tensor of x's shape (batch, heads, seq, d), laid out (batch, seq, heads, d): the order in which the
    projections around attention read and write, so that merging the heads copies nothing."""
    batch, heads, seq, d = x.shape
    return x.new_empty(batch, seq, heads, d).transpose(1, 2)


class _TiledAttention(torch.autograd.Function):
    """On (batch, heads, seq, d_head); saves q, k, v, the output and the log-sum-exp (batch, heads, queries)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        scale = 1 / math.sqrt(q.shape[-1])
        out = _empty_like_sequence(q)
        log_sum_exp = q.new_empty(q.shape[:-1])
        future = _future(q.device)
        for b in range(q.shape[0]):
            queries = q[b] * scale
            for rows, cols in _tiles(q.shape[2], k.shape[2], is_causal):
                scores = torch.bmm(queries[:, rows], k[b, :, cols].transpose(1, 2))
                if is_causal:
                    _hide_future(scores, future)
                maximum = scores.amax(dim=-1, keepdim=True)
                total = scores.sub_(maximum).exp_().sum(dim=-1, keepdim=True)
                out[b, :, rows] = torch.bmm(scores, v[b, :, cols]).div_(total)
                log_sum_exp[b, :, rows] = total.log_().add_(maximum).squeeze(-1)
        ctx.save_for_backward(q, k, v, out, log_sum_exp)
        ctx.is_causal = is_causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, log_sum_exp = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[-1])
        grad_q, grad_k, grad_v = (_empty_like_sequence(x) for x in (q, k, v))
        grad_k.zero_()
        grad_v.zero_()
        future = _future(q.device)
        for b in range(q.shape[0]):
            all_queries, all_grads = q[b] * scale, grad_out[b]
            shift = log_sum_exp[b].neg().unsqueeze(-1)
            # d_scores = probabilities · (d_probabilities - rowsum(d_out · out)), Dao 2023, algorithm 2, lines 13-14
            row_sum = (all_grads * out[b]).sum(dim=-1, keepdim=True).neg_()
            for rows, cols in _tiles(q.shape[2], k.shape[2], ctx.is_causal):
                queries, keys, values, grad = all_queries[:, rows], k[b, :, cols], v[b, :, cols], all_grads[:, rows]
                probabilities = torch.baddbmm(shift[:, rows], queries, keys.transpose(1, 2))
                if ctx.is_causal:
                    _hide_future(probabilities, future)
                probabilities.exp_()
                grad_v[b, :, cols] += torch.bmm(probabilities.transpose(1, 2), grad)
                grad_scores = torch.baddbmm(row_sum[:, rows], grad, values.transpose(1, 2)).mul_(probabilities)
                grad_q[b, :, rows] = torch.bmm(grad_scores, keys).mul_(scale)
                grad_k[b, :, cols] += torch.bmm(grad_scores.transpose(1, 2), queries)
        return grad_q, grad_k, grad_v, None


def tiled_attention(
    q: Float[Tensor, "... heads queries d_head"],
    k: Float[Tensor, "... heads keys d_head"],
    v: Float[Tensor, "... heads keys d_head"],
    is_causal: bool,
) -> Float[Tensor, "... heads queries d_head"]:
    """Attention in tiles, equal to `functional.scaled_dot_product_attention` with or without the causal mask.

    Args:
        q, k, v: queries, keys and values with the same leading dimensions. Half precision is computed in float32.
        is_causal: whether a query sees only the keys up to its own place; the last query stands at the last key.
    """
    leading = q.shape[:-3]
    flat = (upcast(x).reshape(-1, *x.shape[-3:]) for x in (q, k, v))
    with torch.autocast(q.device.type, enabled=False):
        out = _TiledAttention.apply(*flat, is_causal)
    return out.reshape(*leading, *out.shape[1:]).to(v.dtype)
