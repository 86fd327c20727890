"""The expected loss of a run in a simulated world, without noise.

The skeleton is Chinchilla's parametric loss (arXiv:2203.15556, equation 10) on an effective model and effective data,

    L = E + saturated(R),   R = (A / N_eff^alpha + B / D_eff^beta) (1 + penalties)

    N_eff = (N_blocks + w N_embeddings) exp(-c_r ln²(aspect / best) - c_h ln²(head_dim / best) - c_f ln²(ffn / best))
    D_eff = D (1 + g ln(vocabulary / 32,000)) / (1 + batch / critical batch)
    critical batch = B0 (D / 1e9)^b                        (McCandlish et al., arXiv:1812.06162, section 2.3;
                                                            growth with D: Zhang et al., arXiv:2410.21676)
    best lr = l0 (N / 1e8)^-p (batch_eff / 2^18)^q (D / 1e9)^-s     with batch_eff = batch / (1 + batch / critical)

A larger vocabulary packs more text into a token and costs more to compute; losses are per token of the 32,000-word
tokenizer whatever `vocab_size` is, so that they can be compared. Penalties are quadratic in the logarithm of each
setting over its best value; that of the learning rate is the U-shape, flatter far below. Losses cannot exceed that of
a uniform guess, ln 32,000, which R approaches smoothly. Nothing depends on rope_theta, rms_norm_eps, attention_bias,
eps, eps_root, init_value or val_batch_size.
"""

import numpy as np
from jaxtyping import Bool, Float

from cs336_scaling.schemas.limits import VOCABULARY_2025
from cs336_scaling.simulate.hidden import HiddenParameters
from cs336_scaling.simulate.runs import Runs

UNIFORM_LOSS = float(np.log(VOCABULARY_2025))
_SATURATION = 6  # how sharply losses bend under UNIFORM_LOSS; good runs stay far below


def _squared_log(value: np.ndarray, best: float, floor: float = 0.0) -> np.ndarray:
    return np.log((value + floor) / (best + floor)) ** 2


def effective_parameters(hidden: HiddenParameters, runs: Runs) -> Float[np.ndarray, "*runs"]:
    """N_eff: parameters, worth less in embeddings and in odd shapes."""
    shape_cost = (
        hidden.aspect_cost * _squared_log(runs.hidden_size / runs.num_layers, hidden.best_aspect)
        + hidden.head_dim_cost * _squared_log(runs.head_dim, hidden.best_head_dim)
        + hidden.feed_forward_cost * _squared_log(runs.intermediate_size / runs.hidden_size, hidden.best_feed_forward)
    )
    return (runs.block_parameters + hidden.embedding_weight * runs.embedding_parameters) * np.exp(-shape_cost)


def critical_batch(hidden: HiddenParameters, train_tokens: Float[np.ndarray, "*runs"]) -> Float[np.ndarray, "*runs"]:
    """The batch size, in tokens, at which a run needs twice the tokens of one with tiny batches."""
    return hidden.critical_batch * (train_tokens / 1e9) ** hidden.critical_batch_exponent


def best_lr(hidden: HiddenParameters, runs: Runs) -> Float[np.ndarray, "*runs"]:
    """The peak learning rate with the lowest expected loss, all else of the run given."""
    batch = runs.batch_tokens / (1 + runs.batch_tokens / critical_batch(hidden, runs.train_tokens))
    return (
        hidden.best_lr
        * ((runs.block_parameters + runs.embedding_parameters) / 1e8) ** -hidden.lr_model_exponent
        * (batch / 2**18) ** hidden.lr_batch_exponent
        * (runs.train_tokens / 1e9) ** -hidden.lr_data_exponent
        * np.where(runs.sgd, hidden.sgd_lr_ratio * (1 - runs.momentum), 1.0)
    )


def divergence_margin(hidden: HiddenParameters, runs: Runs) -> Float[np.ndarray, "*runs"]:
    """E-folds of learning rate left before training blows up; it does below 0."""
    log_ratio = np.log(runs.lr / best_lr(hidden, runs))
    short_warmup = np.clip(1 - runs.warmup_frac / 0.01, 0, 1)
    return hidden.divergence - 0.4 * ~runs.clipped - 0.3 * short_warmup - log_ratio


def diverges(hidden: HiddenParameters, runs: Runs) -> Bool[np.ndarray, "*runs"]:
    """Whether training blows up, seeds of average luck supposed."""
    return divergence_margin(hidden, runs) < 0


def _penalties(hidden: HiddenParameters, runs: Runs) -> np.ndarray:
    """Relative cost of the optimizer's settings, except for the learning rate's level at the moment."""
    log_ratio = np.log(runs.lr / best_lr(hidden, runs))
    low = hidden.lr_cost_low * log_ratio**2 / (1 + 0.3 * np.abs(log_ratio))
    high = hidden.lr_cost_high * log_ratio**2
    adamw_betas = _squared_log(1 - runs.momentum, 0.1) + _squared_log(1 - runs.beta2, 1 - hidden.best_beta2)
    return (
        np.where(log_ratio < 0, low, high)
        + hidden.warmup_cost * _squared_log(runs.warmup_frac, hidden.best_warmup, floor=0.005)
        + hidden.weight_decay_cost * _squared_log(runs.weight_decay, hidden.best_weight_decay, floor=0.01)
        + np.where(runs.sgd, hidden.sgd_cost * (1 - 0.5 * runs.momentum), hidden.beta_cost * adamw_betas)
    )


def expected_loss(
    hidden: HiddenParameters,
    runs: Runs,
    seen: Float[np.ndarray, "*runs"] | float = 1.0,
    lr_level: Float[np.ndarray, "*runs"] | None = None,
) -> Float[np.ndarray, "*runs"]:
    """The loss in nats per token, noise-free; runs that diverge get what they would have without blowing up.

    Args:
        hidden: the world.
        runs: the runs.
        seen: share of the training tokens seen so far, above 0.
        lr_level: learning rate at this moment over its peak; None for that at the end of the run.
    """
    level = runs.final_lr_frac if lr_level is None else lr_level
    tokens = runs.train_tokens * seen
    text = tokens * (1 + hidden.vocabulary_gain * np.log(runs.vocab_size / VOCABULARY_2025))
    data = text / (1 + runs.batch_tokens / critical_batch(hidden, runs.train_tokens))
    reducible = (
        hidden.model_scale / effective_parameters(hidden, runs) ** hidden.model_exponent
        + hidden.data_scale / data**hidden.data_exponent
    ) * (1 + _penalties(hidden, runs) + hidden.final_lr_cost * level**1.5)
    ceiling = UNIFORM_LOSS - hidden.irreducible
    return hidden.irreducible + reducible / (1 + (reducible / ceiling) ** _SATURATION) ** (1 / _SATURATION)
