"""The Transformer block and the language model, with the handout's ablations."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_basics.model.attention import AttentionFunction, CausalMultiHeadSelfAttention
from cs336_basics.model.config import FeedForwardKind, NormPlacement, PositionKind, TransformerConfig
from cs336_basics.model.kv_cache import KeyValueCache, LayerCache
from cs336_basics.model.modules import Embedding, Linear, RMSNorm, SiLUFeedForward, SwiGLU
from cs336_basics.model.rotary import RotaryEmbedding


class TransformerBlock(nn.Module):
    """Attention and a feed-forward network, each added to the residual stream.

    With `norm="pre"` (Xiong et al. 2020, https://arxiv.org/abs/2002.04745) a sub-layer computes x + f(norm(x)); with
    "post" (Vaswani et al. 2017) norm(x + f(x)); with "none" x + f(x).

    Args:
        d_model: width of the residual stream.
        num_heads: number of attention heads.
        d_ff: width of the feed-forward network.
        positional_encoder: the rotary embedding that attention uses; None is NoPE.
        norm: where the RMSNorms stand.
        ffn: the kind of feed-forward network.
        qk_norm: RMSNorm on queries and keys.
        norm_eps: added to the mean square in every RMSNorm.
        attention_fn: computes attention for a whole sequence; None takes `attention.attention`.
        device, dtype: where and in which type the weights are made; None takes torch's defaults.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        positional_encoder: RotaryEmbedding | None = None,
        *,
        norm: NormPlacement = "pre",
        ffn: FeedForwardKind = "swiglu",
        qk_norm: bool = False,
        norm_eps: float = 1e-5,
        attention_fn: AttentionFunction | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.attn = CausalMultiHeadSelfAttention(
            d_model, num_heads, positional_encoder, attention_fn, qk_norm, norm_eps, device, dtype
        )
        self.ffn = (SwiGLU if ffn == "swiglu" else SiLUFeedForward)(d_model, d_ff, device, dtype)
        self.ln1 = nn.Identity() if norm == "none" else RMSNorm(d_model, norm_eps, device, dtype)
        self.ln2 = nn.Identity() if norm == "none" else RMSNorm(d_model, norm_eps, device, dtype)

    def forward(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        mask: Bool[Tensor, "... seq keys"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """The block's output; the arguments are those of `CausalMultiHeadSelfAttention.forward`."""
        if self.norm == "post":
            x = self.ln1(x + self.attn(x, token_positions, mask, cache))
            return self.ln2(x + self.ffn(x))
        x = x + self.attn(self.ln1(x), token_positions, mask, cache)
        return x + self.ffn(self.ln2(x))


class BasicsTransformerLM(nn.Module):
    """A decoder-only Transformer language model: token ids in, logits of the next token out.

    `TransformerConfig` explains the settings. After post-norm blocks there is no final norm: the last one ends in one.
    Tied embeddings take the output head's initial standard deviation, sqrt(2 / (d_model + vocab_size)), so that the
    first logits are as small as with a head of its own; the first norm brings the embeddings to unit scale.

    Args:
        vocab_size, context_length, d_model, num_layers, num_heads, d_ff, rope_theta: as in `TransformerConfig`.
        norm, position, ffn, tie_embeddings, qk_norm, norm_eps: the ablations, as in `TransformerConfig`.
        attention_fn: computes attention for a whole sequence; None takes `attention.attention`.
        device, dtype: where and in which type the weights are made; None takes torch's defaults.

    Attributes:
        config: the shape; `from_config` builds the same shape again.

    Raises:
        UsageError: the settings are out of range or do not go together.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        d_model: int,
        num_layers: int,
        num_heads: int,
        d_ff: int | None = None,
        rope_theta: float = 10_000.0,
        *,
        norm: NormPlacement = "pre",
        position: PositionKind = "rope",
        ffn: FeedForwardKind = "swiglu",
        tie_embeddings: bool = False,
        qk_norm: bool = False,
        norm_eps: float = 1e-5,
        attention_fn: AttentionFunction | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config = TransformerConfig(
            vocab_size, context_length, d_model, num_layers, num_heads, d_ff, rope_theta,
            norm, position, ffn, tie_embeddings, qk_norm, norm_eps,
        )  # fmt: skip
        made = {"device": device, "dtype": dtype}
        embedding_std = math.sqrt(2 / (d_model + vocab_size)) if tie_embeddings else 1.0
        self.token_embeddings = Embedding(vocab_size, d_model, **made, std=embedding_std)
        self.positional_encoder = (
            RotaryEmbedding(context_length, config.d_head, rope_theta, device) if position == "rope" else None
        )
        self.layers = nn.ModuleList(
            TransformerBlock(
                d_model,
                num_heads,
                config.d_ff,
                self.positional_encoder,
                norm=norm,
                ffn=ffn,
                qk_norm=qk_norm,
                norm_eps=norm_eps,
                attention_fn=attention_fn,
                **made,
            )
            for _ in range(num_layers)
        )
        self.ln_final = RMSNorm(d_model, norm_eps, **made) if norm == "pre" else nn.Identity()
        self.lm_head = Linear(d_model, vocab_size, **made)
        if tie_embeddings:
            self.lm_head.weight = self.token_embeddings.weight

    @classmethod
    def from_config(
        cls,
        config: TransformerConfig,
        *,
        attention_fn: AttentionFunction | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "BasicsTransformerLM":
        """A freshly initialized model of the shape `config`."""
        return cls(**config.to_dict(), attention_fn=attention_fn, device=device, dtype=dtype)

    def forward(
        self,
        token_ids: Int[Tensor, "... seq"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        mask: Bool[Tensor, "... seq keys"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "... seq vocab_size"]:
        """The logits of the token after each one; the arguments are those of `hidden_states`."""
        return self.lm_head(self.hidden_states(token_ids, token_positions, mask, cache))

    def hidden_states(
        self,
        token_ids: Int[Tensor, "... seq"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        mask: Bool[Tensor, "... seq keys"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """What the output head `lm_head` reads: the residual stream after the last block, normalized.

        Args:
            token_ids: the tokens, at most `context_length` of them.
            token_positions: their positions; None counts from the end of the cache, or from 0.
            mask: True where a token may attend to a key, cached ones first; None is the causal mask.
            cache: what earlier calls stored of the tokens before these; these are added.

        Raises:
            UsageError: there are more tokens than `context_length`, or than the cache holds.
        """
        seen = cache.length if cache is not None else 0
        if token_ids.shape[-1] > self.config.context_length:
            raise UsageError(
                f"{token_ids.shape[-1]} tokens do not fit the context length of {self.config.context_length}"
            )
        if token_positions is None and seen:
            token_positions = torch.arange(seen, seen + token_ids.shape[-1], device=token_ids.device)
        return self.ln_final(self.run_layers(self.token_embeddings(token_ids), token_positions, mask, cache))

    def run_layers(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        mask: Bool[Tensor, "... seq keys"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """The residual stream after the last block, from the embeddings `x`; the rest is that of `hidden_states`."""
        for index, layer in enumerate(self.layers):
            x = layer(x, token_positions, mask, cache.layers[index] if cache is not None else None)
        return x


def transformer_lm(
    vocab_size: int = 10_000,
    context_len: int = 256,
    d_model: int = 512,
    num_layers: int = 4,
    num_heads: int = 16,
    d_ff: int | None = None,
    rope_theta: float = 10_000.0,
    **settings: object,
) -> BasicsTransformerLM:
    """A `BasicsTransformerLM` under the names of the training program's flags, with its defaults.

    Args:
        context_len: `context_length`; the other arguments keep their names.
        settings: the keyword arguments of `BasicsTransformerLM`: norm, position, ffn, tie_embeddings, qk_norm, …
    """
    return BasicsTransformerLM(vocab_size, context_len, d_model, num_layers, num_heads, d_ff, rope_theta, **settings)
