"""The tile sizes that Triton's autotuner chooses among.

The lists are short, so that tuning takes seconds, and were chosen by the registers and the shared memory that the
compiler reports for an H100 or H200 (compute capability 9.0); most also have tiles that fit the 99 KB of shared memory
of consumer GPUs. What fits depends on the bytes of a row of Q, K or V, so the lists are by them: 128 bytes are head
dimension 64 in bf16, 256 bytes are 128 in bf16 or 64 in fp32.
"""

from typing import Any

import torch
import triton

from cs336_systems.triton_support import interpreting

Tile = tuple[int, int, int, int]
"""Queries, keys, warps of a program, stages of its load pipeline."""

FORWARD: dict[int, list[Tile]] = {
    128: [(128, 128, 8, 3), (128, 64, 4, 3), (128, 64, 8, 3), (64, 64, 4, 3)],
    256: [(128, 128, 8, 2), (128, 128, 8, 3), (128, 64, 8, 3), (64, 64, 4, 2)],
    512: [(128, 64, 8, 2), (128, 32, 8, 2), (64, 32, 4, 2)],
    1024: [(64, 32, 8, 2), (32, 32, 4, 2), (16, 32, 4, 1)],
}
# With three stages the causal kernel's matrix products wait for each other, the full one's do not.
BACKWARD_KEYS: dict[int, list[Tile]] = {
    128: [(64, 128, 8, 2), (64, 128, 8, 3), (64, 64, 4, 2), (64, 64, 4, 3)],
    256: [(64, 128, 8, 2), (64, 128, 8, 3), (32, 128, 8, 2), (64, 64, 8, 2), (32, 64, 8, 2)],
    512: [(32, 64, 8, 2), (32, 32, 8, 1), (32, 32, 4, 2)],
    1024: [(32, 32, 8, 1), (16, 16, 4, 1)],
}
BACKWARD_QUERIES: dict[int, list[Tile]] = {
    128: [(128, 128, 8, 2), (128, 64, 8, 3), (64, 128, 4, 2), (64, 64, 4, 3)],
    256: [(128, 64, 8, 3), (128, 64, 8, 2), (64, 64, 4, 3), (64, 64, 4, 2)],
    512: [(128, 32, 8, 2), (64, 64, 8, 2), (64, 32, 8, 2), (32, 32, 4, 2)],
    1024: [(32, 32, 8, 1), (16, 16, 4, 1)],
}

INTERPRETED = [(16, 32, 4, 1)]
"""Unequal, so that tests see the diagonal cross tiles; small, since the tests' sequences are short."""


def _row_bytes(block_d: int, element_size: int) -> int:
    """The list to take: the smallest for rows at least so long."""
    return min(max(128, block_d * element_size), 1024)


def autotuned(tiles: dict[int, list[Tile]]) -> Any:
    """The decorator that tunes a kernel over BLOCK_Q and BLOCK_K for each head dimension and size class of lengths.

    The kernel has the arguments Q, tuning_length (a stand-in for the lengths, so that not every new length is tuned),
    IS_CAUSAL and BLOCK_D. What was tuned once is remembered in Triton's cache folder.
    """

    def config(tile: Tile) -> triton.Config:
        block_q, block_k, warps, stages = tile
        return triton.Config({"BLOCK_Q": block_q, "BLOCK_K": block_k}, num_warps=warps, num_stages=stages)

    def fitting(configs: list[triton.Config], arguments: dict[str, Any], **more: Any) -> list[triton.Config]:
        arguments = {**arguments, **more}
        allowed = [config(tile) for tile in tiles[_row_bytes(arguments["BLOCK_D"], arguments["Q"].element_size())]]
        return [candidate for candidate in configs if candidate in allowed]

    every = INTERPRETED if interpreting() else sorted({tile for size in tiles.values() for tile in size})
    return triton.autotune(
        configs=[config(tile) for tile in every],
        key=["tuning_length", "IS_CAUSAL", "BLOCK_D"],
        prune_configs_by={"early_config_prune": fitting},
        cache_results=True,
    )


def tuning_length(num_queries: int, num_keys: int) -> int:
    """One number per class of lengths that share their tile sizes: up to 1,024, up to 4,096, and longer."""
    longest = max(num_queries, num_keys)
    return next((size for size in (1024, 4096) if longest <= size), 16_384)


def dot_precision(dtype: torch.dtype) -> str:
    """How Triton multiplies fp32 tiles: as torch is set to; half precision knows only one way.

    TF32 rounds the factors to 10 bits. The other way splits each into three TF32 numbers, which keeps fp32's accuracy
    on tensor cores.
    """
    return "tf32" if dtype != torch.float32 or torch.get_float32_matmul_precision() != "highest" else "tf32x3"
