"""One callable for every device."""

import torch
from jaxtyping import Float
from torch import Tensor

from cs336_systems.flash_attention.functions import BackwardKind, TiledFlashAttention, TritonFlashAttention


def flash_attention(
    q: Float[Tensor, "... queries d"],
    k: Float[Tensor, "... keys d"],
    v: Float[Tensor, "... keys d"],
    is_causal: bool = False,
    backward: BackwardKind | None = None,
) -> Float[Tensor, "... queries d"]:
    """softmax(Q Kᵀ / sqrt(d)) V in tiles: by Triton on CUDA devices, by PyTorch elsewhere.

    It is an `attention_fn` for `cs336_basics.model.BasicsTransformerLM`.

    Args:
        q, k, v: queries, keys and values with the same leading dimensions, usually (batch, heads). Under autocast they
            are cast to its type first, as for a matrix product.
        is_causal: query i sees the keys 0 … i, also where there are more keys than queries.
        backward: the backward pass: "triton", "compiled" (whole matrices, `torch.compile`) or "pytorch" (tiles); None
            takes that of the forward pass.

    Raises:
        UsageError: the inputs do not go together, or Triton cannot compute them.
    """
    device = q.device.type
    if torch.is_autocast_enabled(device):
        q, k, v = (x.to(torch.get_autocast_dtype(device)) for x in (q, k, v))
    if device == "cuda":
        return TritonFlashAttention.apply(q, k, v, is_causal, backward or "triton")
    return TiledFlashAttention.apply(q, k, v, is_causal, backward or "pytorch")
