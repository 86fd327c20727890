"""The backward pass from whole matrices of scores, as equations: what `torch.compile` makes of them is the comparison.

It needs memory for a few matrices (queries, keys) per head while it runs; the tiled passes do not.
"""

import math
from functools import cache

import torch
from torch import Tensor

from cs336_basics.model.functional import upcast
from cs336_systems.flash_attention.layout import MASKED_SCORE


def recomputed_gradients(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum_exp: Tensor, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of Q, K and V (Dao 2023, https://arxiv.org/abs/2307.08691, section 3.1.2), from the gradient of the
    output and what the forward pass took and gave; half precision is multiplied as such and summed in fp32."""
    scale = 1 / math.sqrt(q.shape[-1])
    scores = upcast(q @ k.transpose(-2, -1)) * scale
    if is_causal:
        places = (torch.arange(length, device=q.device) for length in scores.shape[-2:])
        hidden = torch.lt(*torch.meshgrid(*places, indexing="ij"))
        scores = scores.masked_fill(hidden, MASKED_SCORE)
    probabilities = torch.exp(scores - log_sum_exp.unsqueeze(-1))
    grad_v = probabilities.to(q.dtype).transpose(-2, -1) @ grad_out
    grad_probabilities = upcast(grad_out @ v.transpose(-2, -1))
    row_sum = (upcast(grad_out) * out).sum(dim=-1, keepdim=True)
    grad_scores = (probabilities * (grad_probabilities - row_sum) * scale).to(q.dtype)
    return grad_scores @ k, grad_scores.transpose(-2, -1) @ q, grad_v


@cache
def _compiled() -> object:
    return torch.compile(recomputed_gradients)


def compiled_backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum_exp: Tensor, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`recomputed_gradients`, compiled on first use."""
    return _compiled()(grad_out, q, k, v, out, log_sum_exp, is_causal)
