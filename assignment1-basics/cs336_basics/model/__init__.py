"""The Transformer language model, layer by layer, from torch's tensor operations."""

from cs336_basics.model.attention import CausalMultiHeadSelfAttention
from cs336_basics.model.config import TransformerConfig
from cs336_basics.model.functional import scaled_dot_product_attention
from cs336_basics.model.modules import Embedding, Linear, RMSNorm, SwiGLU
from cs336_basics.model.rotary import RotaryEmbedding
from cs336_basics.model.transformer import BasicsTransformerLM, TransformerBlock, transformer_lm

__all__ = [
    "BasicsTransformerLM",
    "CausalMultiHeadSelfAttention",
    "Embedding",
    "Linear",
    "RMSNorm",
    "RotaryEmbedding",
    "SwiGLU",
    "TransformerBlock",
    "TransformerConfig",
    "scaled_dot_product_attention",
    "transformer_lm",
]
