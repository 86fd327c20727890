"""What every version of flash attention does alike with its inputs: the checks, and four dimensions for all."""

import torch
from torch import Tensor

from cs336_basics.command_line import UsageError

MASKED_SCORE = -1e6
"""The score of a key that causal attention hides from a query. Its probability, exp of this, is 0 in every type."""


def check_inputs(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Refuse queries, keys and values that do not go together.

    Raises:
        UsageError: naming the shapes, types or devices that differ.
    """
    shapes = f"Q {tuple(q.shape)}, K {tuple(k.shape)} and V {tuple(v.shape)}"
    if q.ndim < 2 or k.shape != v.shape or q.shape[:-2] != k.shape[:-2] or q.shape[-1] != k.shape[-1]:
        raise UsageError(
            f"flash attention got {shapes}; allowed are (..., queries, d), (..., keys, d) and (..., keys, d)"
        )
    if q.shape[-1] == 0 or not q.is_floating_point():
        raise UsageError(f"flash attention got {shapes} of {q.dtype}; allowed are floating-point numbers with d ≥ 1")
    if not q.dtype == k.dtype == v.dtype:
        raise UsageError(f"flash attention got Q, K, V of types {q.dtype}, {k.dtype}, {v.dtype}; they must be the same")
    if not q.device == k.device == v.device:
        raise UsageError(f"flash attention got Q, K, V on {q.device}, {k.device}, {v.device}; they must be together")


def as_four_dimensions(x: Tensor) -> Tensor:
    """(..., seq, d) as (batch, heads, seq, d); a view where the strides allow it.

    Three dimensions become (1, batch, seq, d), more than four are flattened into `batch`.
    """
    if x.ndim > 4:
        return x.flatten(0, -4)
    return x[(None,) * (4 - x.ndim)]


def empty_like_sequence(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor of the shape of x (…, heads, seq, d), laid out (…, seq, heads, d): the order in which a model's
    projections read and write, so that merging the heads copies nothing. With fewer dimensions it is contiguous."""
    if x.ndim < 4:
        return x.new_empty(x.shape, dtype=dtype)
    *leading, heads, seq, d = x.shape
    return x.new_empty(*leading, seq, heads, d, dtype=dtype).transpose(-3, -2)


def empty_log_sum_exp(q: Tensor) -> Tensor:
    """An empty tensor of one number per query, (…, queries), of the type in which half precision is summed."""
    return q.new_empty(q.shape[:-1], dtype=torch.promote_types(q.dtype, torch.float32))
