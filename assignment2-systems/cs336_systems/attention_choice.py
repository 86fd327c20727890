"""The attention functions that a command's `--attention` chooses between."""

from jaxtyping import Float
from torch import Tensor

from cs336_basics.model import scaled_dot_product_attention
from cs336_basics.model.attention import AttentionFunction
from cs336_basics.model.functional import causal_mask
from cs336_basics.model.tiled_attention import tiled_attention

ATTENTION_NAMES = ("plain", "tiled", "flash")


def plain_attention(
    q: Float[Tensor, "... queries d_head"],
    k: Float[Tensor, "... keys d_head"],
    v: Float[Tensor, "... keys d_head"],
    is_causal: bool,
) -> Float[Tensor, "... queries d_head"]:
    """Attention that holds every matrix of queries by keys whole."""
    mask = causal_mask(q.shape[-2], k.shape[-2], q.device) if is_causal else None
    return scaled_dot_product_attention(q, k, v, mask)


def attention_function(name: str) -> AttentionFunction:
    """The function of a name in `ATTENTION_NAMES`: whole matrices, a CPU's tiles, or FlashAttention-2."""
    if name == "flash":
        from cs336_systems.flash_attention import flash_attention  # imports Triton, which others need not have

        return flash_attention
    return {"plain": plain_attention, "tiled": tiled_attention}[name]
