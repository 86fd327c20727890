"""Tensor parallelism: every layer of a Transformer divided over the ranks of a group."""

from cs336_systems.tensor_parallel.clipping import clip_gradient, gradient_norm
from cs336_systems.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding
from cs336_systems.tensor_parallel.loss import vocab_parallel_cross_entropy
from cs336_systems.tensor_parallel.model import language_model_loss, tensor_parallelize
from cs336_systems.tensor_parallel.state import (
    gather_optimizer_state,
    gather_state_dict,
    load_full_state_dict,
    load_optimizer_state,
)

__all__ = [
    "ColumnParallelLinear",
    "RowParallelLinear",
    "VocabParallelEmbedding",
    "clip_gradient",
    "gather_optimizer_state",
    "gather_state_dict",
    "gradient_norm",
    "language_model_loss",
    "load_full_state_dict",
    "load_optimizer_state",
    "tensor_parallelize",
    "vocab_parallel_cross_entropy",
]
