"""Training runs as arrays, one entry per run: what the loss surface and the runtime model compute on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float

from cs336_scaling.schemas.edition_2025 import LossQuery
from cs336_scaling.schemas.edition_2026 import AdamWConfig, TrainingConfig
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH, VOCABULARY_2025

FEED_FORWARD_2025 = 8 / 3
"""With this ratio SwiGLU has the 8 d_model² weights that the formula 12 · num_layers · d_model² supposes."""


@dataclass(frozen=True)
class Runs:
    """The settings of many runs; the arrays broadcast against each other.

    Attributes:
        batch_tokens, train_tokens: per optimizer step, and in all.
        block_parameters, embedding_parameters: as in `ArchitectureConfig`; 2025's runs count no embeddings.
        lr, final_lr_frac, warmup_frac: the schedule's peak, its end over its peak, its warm-up's share of the run.
        momentum: AdamW's beta1 or SGD's momentum. clipped: whether gradients are clipped to a norm of at most 10.
    """

    num_layers: Float[np.ndarray, "*runs"]
    hidden_size: Float[np.ndarray, "*runs"]
    head_dim: Float[np.ndarray, "*runs"]
    intermediate_size: Float[np.ndarray, "*runs"]
    vocab_size: Float[np.ndarray, "*runs"]
    block_parameters: Float[np.ndarray, "*runs"]
    embedding_parameters: Float[np.ndarray, "*runs"]
    batch_tokens: Float[np.ndarray, "*runs"]
    train_tokens: Float[np.ndarray, "*runs"]
    lr: Float[np.ndarray, "*runs"]
    final_lr_frac: Float[np.ndarray, "*runs"]
    warmup_frac: Float[np.ndarray, "*runs"]
    weight_decay: Float[np.ndarray, "*runs"]
    momentum: Float[np.ndarray, "*runs"]
    beta2: Float[np.ndarray, "*runs"]
    clipped: Bool[np.ndarray, "*runs"]
    sgd: Bool[np.ndarray, "*runs"]
    float32: Bool[np.ndarray, "*runs"]
    n_evals: Float[np.ndarray, "*runs"]

    @classmethod
    def from_configs(cls, configs: Sequence[TrainingConfig]) -> "Runs":
        """Runs of the 2026 edition."""
        return cls._stack([_row_2026(config) for config in configs])

    @classmethod
    def from_queries(cls, queries: Sequence[LossQuery]) -> "Runs":
        """Runs of the 2025 edition: cosine schedule to a tenth after 5 % of warm-up, AdamW with the usual settings."""
        return cls._stack([_row_2025(query) for query in queries])

    @classmethod
    def _stack(cls, rows: list[dict]) -> "Runs":
        return cls(**{field.name: np.array([row[field.name] for row in rows]) for field in fields(cls)})


def _row_2026(config: TrainingConfig) -> dict:
    shape, optimizer = config.architecture_config, config.optimizer_config
    schedule = optimizer.lr_scheduler
    adamw = isinstance(optimizer, AdamWConfig)
    return {
        "num_layers": float(shape.num_hidden_layers),
        "hidden_size": float(shape.hidden_size),
        "head_dim": float(shape.head_dim),
        "intermediate_size": float(shape.intermediate_size),
        "vocab_size": float(shape.vocab_size),
        "block_parameters": float(shape.num_block_parameters),
        "embedding_parameters": float(shape.num_embedding_parameters),
        "batch_tokens": float(config.train_batch_size * SEQUENCE_LENGTH),
        "train_tokens": float(config.total_train_tokens),
        "lr": schedule.peak_value,
        "final_lr_frac": schedule.final_lr_frac,
        "warmup_frac": schedule.warmup_frac,
        "weight_decay": optimizer.weight_decay,
        "momentum": optimizer.beta1 if adamw else optimizer.momentum,
        "beta2": optimizer.beta2 if adamw else 0.0,
        "clipped": optimizer.grad_clip_norm is not None and optimizer.grad_clip_norm <= 10,
        "sgd": not adamw,
        "float32": shape.dtype == "float32",
        "n_evals": float(config.n_evals),
    }


def _row_2025(query: LossQuery) -> dict:
    return {
        "num_layers": float(query.num_layers),
        "hidden_size": float(query.d_model),
        "head_dim": query.d_model / query.num_heads,
        "intermediate_size": FEED_FORWARD_2025 * query.d_model,
        "vocab_size": float(VOCABULARY_2025),
        "block_parameters": float(query.num_parameters),
        "embedding_parameters": 0.0,
        "batch_tokens": float(query.batch_size * SEQUENCE_LENGTH),
        "train_tokens": query.num_tokens,
        "lr": query.learning_rate,
        "final_lr_frac": 0.1,
        "warmup_frac": 0.05,
        "weight_decay": 0.1,
        "momentum": 0.9,
        "beta2": 0.95,
        "clipped": True,
        "sgd": False,
        "float32": False,
        "n_evals": 1.0,
    }
