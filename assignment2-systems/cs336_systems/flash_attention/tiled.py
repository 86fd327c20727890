"""FlashAttention-2 in PyTorch, tile by tile (Dao 2023, https://arxiv.org/abs/2307.08691, algorithms 1 and 2).

For a tile of queries the forward pass walks over tiles of keys and keeps, per query, the largest score m so far, the
sum l of exp(score - m), and the output O not yet divided by l. A new tile S of scores updates them:

    m' = max(m, rowmax(S))      P = exp(S - m')      l' = exp(m - m') l + rowsum(P)      O' = exp(m - m') O + P V

At the end O / l is the output, and L = m + log(l), the log-sum-exp of a query's scores, is all that is kept of the
scores. The backward pass computes P = exp(S - L) again, and with D = rowsum(dO ∘ O):

    dV = Pᵀ dO      dP = dO Vᵀ      dS = P ∘ (dP - D)      dQ = dS K / sqrt(d)      dK = dSᵀ Q / sqrt(d)

It runs on every device. On a CPU the sizes of the tiles keep each step's numbers in the cache.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cs336_basics.model.functional import upcast
from cs336_systems.flash_attention.layout import (
    MASKED_SCORE,
    as_four_dimensions,
    empty_like_sequence,
    empty_log_sum_exp,
)

QUERY_TILE = 64
KEY_TILE = 512


def _tiles(length: int, size: int, stop: int | None = None) -> Iterator[slice]:
    """Slices of `size` over `length` places, those that begin at `stop` or later left out."""
    end = length if stop is None else min(length, stop)
    return (slice(start, min(start + size, end)) for start in range(0, end, size))


def _hide_future(scores: Tensor, rows: slice, cols: slice) -> None:
    """Set the scores (…, rows, cols) of keys that come after their query to `MASKED_SCORE`."""
    first = max(rows.start, cols.start)  # up to here every query of the tile sees every key
    if rows.start + 1 < cols.stop:
        queries = torch.arange(rows.start, rows.stop, device=scores.device)
        keys = torch.arange(first, cols.stop, device=scores.device)
        scores[..., first - cols.start :].masked_fill_(queries[:, None] < keys, MASKED_SCORE)


def _visible(rows: slice, is_causal: bool) -> int | None:
    """Where the keys end that any of these queries may see; None is the end of the sequence."""
    return rows.stop if is_causal else None


@torch.library.custom_op("cs336_systems::tiled_attention_forward", mutates_args=())
def tiled_forward(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of attention; see `functions.TiledFlashAttention` for the arguments.

    Returns:
        The output, of the shape and type of Q, and the log-sum-exp (..., queries) in at least fp32.
    """
    result, log_sum_exp = empty_like_sequence(q), empty_log_sum_exp(q)
    if not k.shape[-2]:
        return result.zero_(), log_sum_exp.fill_(-math.inf)
    scale = 1 / math.sqrt(q.shape[-1])
    q, k, v, out = map(as_four_dimensions, (q, k, v, result))
    lse = as_four_dimensions(log_sum_exp.unsqueeze(-1))
    for b in range(q.shape[0]):
        for rows in _tiles(q.shape[2], QUERY_TILE):
            queries = upcast(q[b, :, rows]) * scale
            maximum = queries.new_full((*queries.shape[:-1], 1), -math.inf)
            total = torch.zeros_like(maximum)
            weighted = torch.zeros_like(queries)
            for cols in _tiles(k.shape[2], KEY_TILE, _visible(rows, is_causal)):
                scores = torch.bmm(queries, upcast(k[b, :, cols]).transpose(1, 2))
                if is_causal:
                    _hide_future(scores, rows, cols)
                new_maximum = torch.maximum(maximum, scores.amax(dim=-1, keepdim=True))
                rescale = torch.exp(maximum - new_maximum)
                probabilities = scores.sub_(new_maximum).exp_()
                total = total.mul_(rescale).add_(probabilities.sum(dim=-1, keepdim=True))
                weighted = weighted.mul_(rescale).baddbmm_(probabilities, upcast(v[b, :, cols]))
                maximum = new_maximum
            out[b, :, rows] = weighted.div_(total)
            lse[b, :, rows] = total.log_().add_(maximum)
    return result, log_sum_exp


@tiled_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    return empty_like_sequence(q), empty_log_sum_exp(q)


@torch.library.custom_op("cs336_systems::tiled_attention_backward", mutates_args=())
def tiled_backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum_exp: Tensor, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of Q, K and V, from the gradient of the output and what `tiled_forward` took and gave."""
    scale = 1 / math.sqrt(q.shape[-1])
    results = [empty_like_sequence(x, dtype=log_sum_exp.dtype).zero_() for x in (q, k, v)]
    grad_q, grad_k, grad_v = map(as_four_dimensions, results)
    dtype = q.dtype
    grad_out, q, k, v, out = map(as_four_dimensions, (grad_out, q, k, v, out))
    lse = as_four_dimensions(log_sum_exp.unsqueeze(-1))
    for b in range(q.shape[0]):
        for rows in _tiles(q.shape[2], QUERY_TILE):
            queries, grad = upcast(q[b, :, rows]) * scale, upcast(grad_out[b, :, rows])
            minus_d = (grad * out[b, :, rows]).sum(dim=-1, keepdim=True).neg_()
            minus_lse = lse[b, :, rows].neg()
            for cols in _tiles(k.shape[2], KEY_TILE, _visible(rows, is_causal)):
                keys, values = upcast(k[b, :, cols]), upcast(v[b, :, cols])
                probabilities = torch.baddbmm(minus_lse, queries, keys.transpose(1, 2))
                if is_causal:
                    _hide_future(probabilities, rows, cols)
                probabilities.exp_()
                grad_v[b, :, cols] += torch.bmm(probabilities.transpose(1, 2), grad)
                grad_scores = torch.baddbmm(minus_d, grad, values.transpose(1, 2)).mul_(probabilities)
                grad_q[b, :, rows] += torch.bmm(grad_scores, keys)
                grad_k[b, :, cols] += torch.bmm(grad_scores.transpose(1, 2), queries)
    grad_q.mul_(scale)
    grad_q, grad_k, grad_v = (result.to(dtype) for result in results)
    return grad_q, grad_k, grad_v


@tiled_backward.register_fake
def _(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum_exp: Tensor, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like_sequence(q), empty_like_sequence(k), empty_like_sequence(v)
