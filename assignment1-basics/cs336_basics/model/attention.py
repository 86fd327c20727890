"""Causal multi-head self-attention, with a replaceable inner attention function."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_basics.model.functional import causal_mask, scaled_dot_product_attention
from cs336_basics.model.kv_cache import LayerCache
from cs336_basics.model.modules import Linear, RMSNorm
from cs336_basics.model.rotary import RotaryEmbedding
from cs336_basics.model.tiled_attention import tiled_attention

AttentionFunction = Callable[[Tensor, Tensor, Tensor, bool], Tensor]
"""f(q, k, v, is_causal) on tensors (..., heads, seq, d_head), for as many queries as keys."""


def plain_attention(
    q: Float[Tensor, "... heads seq d_head"],
    k: Float[Tensor, "... heads seq d_head"],
    v: Float[Tensor, "... heads seq d_head"],
    is_causal: bool,
) -> Float[Tensor, "... heads seq d_head"]:
    """The `AttentionFunction` that holds each head's matrix of queries by keys whole."""
    mask = causal_mask(q.shape[-2], k.shape[-2], q.device) if is_causal else None
    return scaled_dot_product_attention(q, k, v, mask)


def attention(
    q: Float[Tensor, "... heads seq d_head"],
    k: Float[Tensor, "... heads seq d_head"],
    v: Float[Tensor, "... heads seq d_head"],
    is_causal: bool,
) -> Float[Tensor, "... heads seq d_head"]:
    """The default `AttentionFunction`: in tiles on a CPU, in the plain form elsewhere and under `torch.compile`."""
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        return tiled_attention(q, k, v, is_causal)
    return plain_attention(q, k, v, is_causal)


class CausalMultiHeadSelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2) in which no token sees a later one.

    Head h owns rows h · d_head … (h+1) · d_head - 1 of the query, key and value projections.

    Args:
        d_model: size of the input and the output.
        num_heads: number of heads; divides `d_model`.
        positional_encoder: rotates queries and keys by their positions; None leaves them as they are (NoPE).
        attention_fn: computes attention for a whole sequence; None takes `attention`.
        qk_norm: RMSNorm on each head's queries and keys, with one gain per dimension of a head (Dehghani et al. 2023,
            https://arxiv.org/abs/2302.05442, section 2).
        norm_eps: added to the mean square in those norms.
        device, dtype: where and in which type the weights are made; None takes torch's defaults.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        positional_encoder: RotaryEmbedding | None = None,
        attention_fn: AttentionFunction | None = None,
        qk_norm: bool = False,
        norm_eps: float = 1e-5,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if d_model % num_heads:
            raise UsageError(f"d_model {d_model} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.positional_encoder = positional_encoder
        self.attention_fn = attention_fn or attention
        self.q_proj = Linear(d_model, d_model, device, dtype)
        self.k_proj = Linear(d_model, d_model, device, dtype)
        self.v_proj = Linear(d_model, d_model, device, dtype)
        self.output_proj = Linear(d_model, d_model, device, dtype)
        d_head = d_model // num_heads
        self.q_norm = RMSNorm(d_head, norm_eps, device, dtype) if qk_norm else None
        self.k_norm = RMSNorm(d_head, norm_eps, device, dtype) if qk_norm else None

    def forward(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        mask: Bool[Tensor, "... seq keys"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """Attend from each token to itself and the tokens before it.

        Args:
            x: the sequence.
            token_positions: positions for the rotary embedding; None counts from 0 (with a cache: they must be given).
            mask: True where a token may attend to a key, cached ones first; None is the causal mask.
            cache: keys and values of the tokens before `x`, to which those of `x` are added.
        """
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)  # (..., heads, seq, d_head)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.positional_encoder is not None:
            # The positions get a dimension for the heads, which all share them.
            positions = None if token_positions is None else token_positions.unsqueeze(-2)
            q, k = self.positional_encoder(q, positions), self.positional_encoder(k, positions)
        if cache is not None:
            k, v = cache.append(k, v)
        if mask is None and k.shape[-2] == q.shape[-2]:
            out = self.attention_fn(q, k, v, True)
        else:
            if mask is None and q.shape[-2] > 1:
                mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
            out = scaled_dot_product_attention(q, k, v, None if mask is None else mask.unsqueeze(-3))
        return self.output_proj(out.transpose(-3, -2).flatten(-2))
