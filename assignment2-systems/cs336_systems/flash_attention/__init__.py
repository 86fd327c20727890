"""FlashAttention-2: exact attention without a matrix of scores, in tiled PyTorch and in Triton."""

from cs336_systems.flash_attention.attention import flash_attention
from cs336_systems.flash_attention.tiled import TiledFlashAttention

__all__ = ["TiledFlashAttention", "flash_attention"]
