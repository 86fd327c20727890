"""The true optimum of a simulated world, by exhaustive search of shapes and batch sizes; the best learning rate is
known in closed form. For evaluation only: no server route leads here."""

from dataclasses import dataclass, replace

import numpy as np

from cs336_scaling.schemas.edition_2025 import BATCH_SIZES, LEARNING_RATE_RANGE, NUM_HEADS_RANGE, LossQuery
from cs336_scaling.schemas.edition_2026 import TargetConfig
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH, TARGET_2026_SECONDS
from cs336_scaling.simulate.hidden import HiddenParameters
from cs336_scaling.simulate.loss_surface import best_lr, expected_loss
from cs336_scaling.simulate.runs import Runs
from cs336_scaling.simulate.runtime import expected_runtime


@dataclass(frozen=True)
class Optimum:
    """The best run for a budget, and its expected loss in nats per token."""

    config: LossQuery | TargetConfig
    loss: float


def best_query(hidden: HiddenParameters, train_flops: float) -> Optimum:
    """The best 2025 run: d_model in multiples of 64 up to 4096, 2 to 64 layers; all else from the API's ranges."""
    heads = np.arange(NUM_HEADS_RANGE[0], NUM_HEADS_RANGE[1] + 1)
    width, layers, batch = (
        axis.ravel() for axis in np.meshgrid(np.arange(64, 4097, 64), np.arange(2, 65), BATCH_SIZES, indexing="ij")
    )
    head_dims = width[:, None] / heads
    misfit = np.where(width[:, None] % heads == 0, np.abs(np.log(head_dims / hidden.best_head_dim)), np.inf)
    chosen_heads = heads[np.argmin(misfit, axis=1)]
    template = Runs.from_queries(
        [LossQuery(d_model=64, num_layers=2, num_heads=2, batch_size=128, learning_rate=1e-3, train_flops=10**13)]
    )
    parameters = 12.0 * layers * width**2
    runs = replace(
        template,
        num_layers=layers.astype(float),
        hidden_size=width.astype(float),
        head_dim=width / chosen_heads,
        intermediate_size=template.intermediate_size / template.hidden_size * width,
        block_parameters=parameters,
        batch_tokens=batch * float(SEQUENCE_LENGTH),
        train_tokens=train_flops / (6 * parameters),
    )
    runs = replace(runs, lr=np.clip(best_lr(hidden, runs), *LEARNING_RATE_RANGE))
    losses = expected_loss(hidden, runs)
    best = int(np.argmin(losses))
    query = LossQuery(
        d_model=int(width[best]),
        num_layers=int(layers[best]),
        num_heads=int(chosen_heads[best]),
        batch_size=int(batch[best]),
        learning_rate=float(runs.lr[best]),
        train_flops=int(train_flops),
    )
    return Optimum(query, float(losses[best]))


def best_config(hidden: HiddenParameters, seconds: float, vocab_size: int) -> Optimum:
    """The best 2026 run that is expected to end in time: head_dim 64 or 128, feed-forward ratios in steps of about 1/8,
    batches of 8 to 8192 sequences, 2 to 64 layers, all optimizer settings at their best."""
    head_dim = 64 if hidden.best_head_dim < np.sqrt(64 * 128) else 128
    widths = np.unique(np.round(np.geomspace(1, 8192 // head_dim, 48))).astype(int) * head_dim
    layers = np.unique(np.round(np.geomspace(2, 64, 40))).astype(int)
    # The feed-forward width trades for depth and width at nearly no cost, so two ratios around the best are enough.
    ratios = np.array([0.8, 1.0, 1.25]) * hidden.best_feed_forward
    batches = np.unique(np.round(2 ** np.arange(3, 13.1, 0.5))).astype(int)
    width, depth, ratio, batch = (axis.ravel() for axis in np.meshgrid(widths, layers, ratios, batches, indexing="ij"))
    feed_forward = np.maximum(width, np.round(ratio * width / 8) * 8).astype(int)
    template = Runs.from_configs(
        [_config(hidden, head_dim, head_dim, head_dim * 4, 2, 8, 1, 1e-3, seconds, vocab_size)]
    )
    runs = replace(
        template,
        num_layers=depth.astype(float),
        hidden_size=width.astype(float),
        intermediate_size=feed_forward.astype(float),
        block_parameters=depth * (4.0 * width**2 + 3.0 * width * feed_forward),
        embedding_parameters=2.0 * vocab_size * width,
        batch_tokens=batch * float(SEQUENCE_LENGTH),
    )
    time = expected_runtime(hidden, runs)
    steps = np.floor((seconds - time.startup - time.per_eval) / time.per_step)
    if not np.any(steps >= 1):
        raise ValueError(f"no model fits into {seconds} seconds")
    runs = replace(runs, train_tokens=np.maximum(steps, 1) * runs.batch_tokens)
    runs = replace(runs, lr=best_lr(hidden, runs))
    losses = np.where(steps >= 1, expected_loss(hidden, runs), np.inf)
    best = int(np.argmin(losses))
    config = _config(
        hidden,
        head_dim,
        int(width[best]),
        int(feed_forward[best]),
        int(depth[best]),
        int(batch[best]),
        int(steps[best]),
        float(runs.lr[best]),
        seconds,
        vocab_size,
    )
    return Optimum(config, float(losses[best]))


def _config(
    hidden: HiddenParameters,
    head_dim: int,
    width: int,
    feed_forward: int,
    layers: int,
    batch: int,
    steps: int,
    lr: float,
    seconds: float,
    vocab_size: int,
) -> TargetConfig:
    """A 2026 configuration with this world's best optimizer settings."""
    heads = width // head_dim
    return TargetConfig.model_validate(
        {
            "architecture_config": {
                "head_dim": head_dim,
                "hidden_size": width,
                "intermediate_size": feed_forward,
                "num_attention_heads": heads,
                "num_hidden_layers": layers,
                "num_key_value_heads": heads,
                "vocab_size": vocab_size,
            },
            "optimizer_config": {
                "lr_scheduler": {"peak_value": lr, "final_lr_frac": 0.0, "warmup_frac": hidden.best_warmup},
                "weight_decay": hidden.best_weight_decay,
                "beta2": hidden.best_beta2,
            },
            "train_batch_size": batch,
            "n_evals": 1,
            "total_train_tokens": steps * batch * SEQUENCE_LENGTH,
            "max_runtime_seconds": min(max(seconds, 1.0), TARGET_2026_SECONDS),
        }
    )
