"""How long a run takes on a simulated machine: one GPU with the peak of an H100, an MFU that grows with the width, and
overheads per step, per validation and per run."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cs336_scaling.schemas.limits import SEQUENCE_LENGTH, VALIDATION_TOKENS
from cs336_scaling.simulate.hidden import HiddenParameters
from cs336_scaling.simulate.runs import Runs

PEAK_FLOPS = 989e12
"""Dense bfloat16 operations per second of an H100 SXM (NVIDIA's data sheet); float32 takes four times as long here."""
_FLOAT32_FACTOR = 4.0
_UPDATE_SECONDS_PER_PARAMETER = 28 / 3.35e12
"""AdamW reads weight, gradient and two moments and writes all but the gradient, 4 bytes each, at 3.35 TB/s."""


def training_flops_per_token(runs: Runs) -> Float[np.ndarray, "*runs"]:
    """6 per weight of the blocks and of the output head, and 12 · layers · hidden_size · 512 for attention scores
    (PaLM, arXiv:2204.02311, appendix B)."""
    weights = runs.block_parameters + runs.vocab_size * runs.hidden_size
    return 6 * weights + 12 * runs.num_layers * runs.hidden_size * SEQUENCE_LENGTH


@dataclass(frozen=True)
class Runtime:
    """Seconds, one entry per run: before the first step, per step, per validation."""

    startup: Float[np.ndarray, "*runs"]
    per_step: Float[np.ndarray, "*runs"]
    per_eval: Float[np.ndarray, "*runs"]


def expected_runtime(hidden: HiddenParameters, runs: Runs) -> Runtime:
    """The parts of a run's time, noise-free. Small batches waste the overhead of each step, narrow models the GPU."""
    mfu = hidden.peak_mfu * runs.hidden_size / (runs.hidden_size + hidden.half_width)
    per_token = training_flops_per_token(runs) / (PEAK_FLOPS * mfu) * np.where(runs.float32, _FLOAT32_FACTOR, 1.0)
    update = (runs.block_parameters + runs.embedding_parameters) * _UPDATE_SECONDS_PER_PARAMETER
    overhead = hidden.step_overhead + hidden.layer_overhead * runs.num_layers
    return Runtime(
        startup=hidden.startup * np.ones_like(per_token),
        per_step=per_token * runs.batch_tokens + update + overhead,
        per_eval=per_token / 3 * VALIDATION_TOKENS + hidden.eval_overhead,
    )


def expected_seconds(hidden: HiddenParameters, runs: Runs) -> Float[np.ndarray, "*runs"]:
    """The whole run's wall-clock time, noise-free."""
    time = expected_runtime(hidden, runs)
    return time.startup + time.per_step * runs.train_tokens / runs.batch_tokens + time.per_eval * runs.n_evals
