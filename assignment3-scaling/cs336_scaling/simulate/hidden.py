"""What a simulated world keeps secret: the parameters of its loss surface and of its machine, drawn from a seed."""

from dataclasses import dataclass

import numpy as np

from cs336_scaling.schemas.limits import TARGET_2025_FLOPS


@dataclass(frozen=True)
class HiddenParameters:
    """One world. `loss_surface.py` and `runtime.py` say what each parameter does.

    Attributes:
        irreducible: E, the loss no model goes below, nats per token.
        model_scale, model_exponent: A and alpha of A / N^alpha.
        data_scale, data_exponent: B and beta of B / D^beta.
        embedding_weight: what an embedding parameter is worth beside one of the blocks.
        best_aspect, aspect_cost: best hidden_size / num_hidden_layers, and the cost of leaving it.
        best_head_dim, head_dim_cost: the same for head_dim.
        best_feed_forward, feed_forward_cost: the same for intermediate_size / hidden_size.
        vocabulary_gain: relative gain in text per token for each factor of e in vocabulary size.
        critical_batch, critical_batch_exponent: critical batch size, in tokens, at 1e9 training tokens, and its growth.
        best_lr: best AdamW peak learning rate at 1e8 parameters and batches of 2^18 tokens.
        lr_model_exponent, lr_batch_exponent, lr_data_exponent: how it shifts with parameters, batch and tokens.
        lr_cost_low, lr_cost_high: cost per squared e-fold below and above the best learning rate.
        divergence: e-folds above the best learning rate at which training blows up.
        sgd_lr_ratio: SGD's best learning rate over AdamW's. sgd_cost: its relative cost without momentum.
        best_warmup, warmup_cost, best_weight_decay, weight_decay_cost, best_beta2, beta_cost, final_lr_cost: the same
            for the lesser settings.
        noise: relative standard deviation of the final loss from seed to seed.
        peak_mfu: highest model FLOPs utilization. half_width: hidden_size that reaches half of it.
        step_overhead, layer_overhead, startup, eval_overhead: seconds per step, per layer and step, per run, per
            validation.
    """

    irreducible: float
    model_scale: float
    model_exponent: float
    data_scale: float
    data_exponent: float
    embedding_weight: float
    best_aspect: float
    aspect_cost: float
    best_head_dim: float
    head_dim_cost: float
    best_feed_forward: float
    feed_forward_cost: float
    vocabulary_gain: float
    critical_batch: float
    critical_batch_exponent: float
    best_lr: float
    lr_model_exponent: float
    lr_batch_exponent: float
    lr_data_exponent: float
    lr_cost_low: float
    lr_cost_high: float
    divergence: float
    sgd_lr_ratio: float
    sgd_cost: float
    best_warmup: float
    warmup_cost: float
    best_weight_decay: float
    weight_decay_cost: float
    best_beta2: float
    beta_cost: float
    final_lr_cost: float
    noise: float
    peak_mfu: float
    half_width: float
    step_overhead: float
    layer_overhead: float
    startup: float
    eval_overhead: float

    @classmethod
    def draw(cls, seed: int) -> "HiddenParameters":
        """Plausible parameters: exponents and ratios around Chinchilla's (arXiv:2203.15556, section 3.3).

        A and B follow from two drawn numbers: tokens per parameter and reducible loss of the best model for 1e19 FLOPs.
        There alpha A / N^alpha = beta B / D^beta, so each term is a known share of the reducible loss.
        """
        rng = np.random.default_rng(seed)

        def uniform(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        def log_uniform(low: float, high: float) -> float:
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))

        alpha, beta = uniform(0.29, 0.38), uniform(0.26, 0.36)
        tokens_per_parameter, reducible = log_uniform(10, 40), uniform(0.9, 1.4)
        parameters = np.sqrt(TARGET_2025_FLOPS / 6 / tokens_per_parameter)
        tokens = tokens_per_parameter * parameters
        return cls(
            irreducible=uniform(1.55, 1.95),
            model_scale=float(reducible * beta / (alpha + beta) * parameters**alpha),
            model_exponent=alpha,
            data_scale=float(reducible * alpha / (alpha + beta) * tokens**beta),
            data_exponent=beta,
            embedding_weight=uniform(0.05, 0.25),
            best_aspect=log_uniform(40, 110),
            aspect_cost=uniform(0.04, 0.12),
            best_head_dim=log_uniform(64, 128),
            head_dim_cost=uniform(0.01, 0.04),
            best_feed_forward=uniform(2.5, 4.0),
            feed_forward_cost=uniform(0.03, 0.08),
            vocabulary_gain=uniform(0.06, 0.12),
            critical_batch=log_uniform(4e5, 2e6),
            critical_batch_exponent=uniform(0.35, 0.55),
            best_lr=log_uniform(6e-4, 3e-3),
            lr_model_exponent=uniform(0.12, 0.35),
            lr_batch_exponent=uniform(0.25, 0.5),
            lr_data_exponent=uniform(0.0, 0.1),
            lr_cost_low=uniform(0.01, 0.03),
            lr_cost_high=uniform(0.02, 0.06),
            divergence=uniform(1.8, 2.6),
            sgd_lr_ratio=log_uniform(50, 300),
            sgd_cost=uniform(0.2, 0.4),
            best_warmup=log_uniform(0.01, 0.06),
            warmup_cost=uniform(0.001, 0.004),
            best_weight_decay=log_uniform(0.05, 0.2),
            weight_decay_cost=uniform(0.001, 0.004),
            best_beta2=uniform(0.95, 0.985),
            beta_cost=uniform(0.001, 0.003),
            final_lr_cost=uniform(0.02, 0.05),
            noise=log_uniform(0.0005, 0.002),
            peak_mfu=uniform(0.4, 0.55),
            half_width=uniform(150, 450),
            step_overhead=uniform(1e-3, 4e-3),
            layer_overhead=uniform(1e-4, 4e-4),
            startup=uniform(15, 40),
            eval_overhead=uniform(0.1, 0.4),
        )
