"""FlashAttention-2: exact attention without a matrix of scores, in tiled PyTorch and in Triton."""

from cs336_systems.flash_attention.attention import flash_attention
from cs336_systems.flash_attention.functions import TiledFlashAttention, TritonFlashAttention

__all__ = ["TiledFlashAttention", "TritonFlashAttention", "flash_attention"]
