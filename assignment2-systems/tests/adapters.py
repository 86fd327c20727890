"""The seam between this implementation and the course's shared test suites: names and signatures are fixed.

The Spring 2025 and 2026 editions share some names; those of only one edition stand beside the others.
"""

from typing import Any

import torch

from cs336_systems.data_parallel import BucketedDDP, OverlappedDDP
from cs336_systems.flash_attention import TiledFlashAttention, TritonFlashAttention
from cs336_systems.fsdp import FSDP
from cs336_systems.sharded_optimizer import ShardedOptimizer


def get_flashattention_autograd_function_pytorch() -> type:
    """FlashAttention-2 in PyTorch, called as `.apply(Q, K, V, is_causal)` on (batch, seq, d)."""
    return TiledFlashAttention


def get_flashattention_autograd_function_triton() -> type:
    """FlashAttention-2 in Triton, called as `.apply(Q, K, V, is_causal)` on (batch, seq, d)."""
    return TritonFlashAttention


def get_ddp(module: torch.nn.Module) -> torch.nn.Module:
    """A data-parallel container that averages each gradient while the backward pass goes on."""
    return OverlappedDDP(module)


def ddp_on_after_backward(ddp_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Called between the backward pass and the optimizer's step."""
    ddp_model.finish_gradient_synchronization()


def get_ddp_individual_parameters(module: torch.nn.Module) -> torch.nn.Module:
    """The Spring 2025 name of `get_ddp`."""
    return get_ddp(module)


def ddp_individual_parameters_on_after_backward(ddp_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The Spring 2025 name of `ddp_on_after_backward`."""
    ddp_on_after_backward(ddp_model, optimizer)


def get_ddp_bucketed(module: torch.nn.Module, bucket_size_mb: float) -> torch.nn.Module:
    """A data-parallel container that averages gradients in buckets while the backward pass goes on."""
    return BucketedDDP(module, bucket_size_mb)


def ddp_bucketed_on_after_backward(ddp_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Called between the backward pass and the optimizer's step."""
    ddp_model.finish_gradient_synchronization()


def ddp_bucketed_on_train_batch_start(ddp_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Called before each step's forward pass."""
    ddp_model.start_batch()


def get_fsdp(module: torch.nn.Module, compute_dtype: torch.dtype | None = None) -> torch.nn.Module:
    """A container that shards the weights of Linear and Embedding layers over the ranks."""
    return FSDP(module, compute_dtype)


def fsdp_on_after_backward(fsdp_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Called between the backward pass and the optimizer's step."""
    fsdp_model.finish_gradient_synchronization()


def fsdp_gather_full_params(fsdp_model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All parameters whole, by their unprefixed names."""
    return fsdp_model.gather_full_params()


def get_sharded_optimizer(
    params: Any, optimizer_cls: type[torch.optim.Optimizer], **kwargs: Any
) -> torch.optim.Optimizer:
    """An optimizer that keeps the state of a part of the parameters on each rank."""
    return ShardedOptimizer(params, optimizer_cls, **kwargs)
