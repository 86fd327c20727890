"""The model's mathematics as plain functions, in the form the papers give them.

These are the definitions. `fused.py` and `tiled_attention.py` hold hand-written backward passes for three of them,
which compute the same numbers with less memory; `torch.compile` gets the plain forms, since it does its own fusing.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """`x` in at least float32: half-precision values are too coarse for sums of squares and exponentials."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def silu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x · sigmoid(x) (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415, section 2)."""
    return x * torch.sigmoid(x)


def swiglu_gate(gate: Float[Tensor, "..."], up: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """silu(gate) · up, the middle of SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202, equation 6)."""
    return silu(gate) * up


def softmax(x: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """exp(x) / sum(exp(x)) along `dim`; the maximum is subtracted first, so large inputs stay finite.

    Entries of -inf get probability 0. A slice that is -inf throughout has no distribution: it gives NaN.
    """
    exponentials = torch.exp(x - x.amax(dim=dim, keepdim=True))
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def rms_norm(
    x: Float[Tensor, "... d_model"], weight: Float[Tensor, " d_model"], eps: float
) -> Float[Tensor, "... d_model"]:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension (Zhang and Sennrich 2019,
    https://arxiv.org/abs/1910.07467, equation 4), computed in at least float32 and returned in x's dtype.
    """
    x32 = upcast(x)
    inverse_rms = torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + eps)
    return (x32 * inverse_rms * weight).to(x.dtype)


def rotate_pairs(
    x: Float[Tensor, "... seq d_head"], cos: Float[Tensor, "... seq pairs"], sin: Float[Tensor, "... seq pairs"]
) -> Float[Tensor, "... seq d_head"]:
    """Rotate each pair (x[2k], x[2k+1]) by the angle whose cosine and sine are given (Su et al. 2021,
    https://arxiv.org/abs/2104.09864, equation 34). The result has x's dtype.
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Bool[Tensor, "queries keys"]:
    """True where a query may attend. The last query stands at the last key; each sees its own and earlier places."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(diagonal=keys - queries)


def scaled_dot_product_attention(
    Q: Float[Tensor, "... queries d_k"],
    K: Float[Tensor, "... keys d_k"],
    V: Float[Tensor, "... keys d_v"],
    mask: Bool[Tensor, "... queries keys"] | None = None,
) -> Float[Tensor, "... queries d_v"]:
    """softmax(Q Kᵀ / sqrt(d_k)) V (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1).

    Args:
        Q, K, V: queries, keys and values; leading dimensions broadcast.
        mask: True where a query may attend to a key; None lets every query attend everywhere. A query that may attend
            nowhere gets the zero vector (and sends back no gradient).
    """
    scores = upcast(Q @ K.transpose(-2, -1) / math.sqrt(Q.shape[-1]))
    if mask is None:
        return softmax(scores).to(V.dtype) @ V
    # A finite fill keeps a row without any allowed key free of NaN; the second fill takes its uniform weights away.
    weights = softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min))
    return weights.masked_fill(~mask, 0.0).to(V.dtype) @ V
