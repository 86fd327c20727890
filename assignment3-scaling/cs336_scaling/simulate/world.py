"""A simulated world: what the training API's `simulate` backend asks instead of training.

>>> world = World.from_seed(0)
>>> run = world.simulate(config)            # what an experiment would have shown
>>> best = world.optimum(seconds=172_800)   # for evaluation only: clients cannot ask for it
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cs336_basics.command_line import UsageError
from cs336_scaling.schemas.canonical import canonical_hash
from cs336_scaling.schemas.edition_2025 import LossQuery
from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.simulate import optimum
from cs336_scaling.simulate.hidden import HiddenParameters
from cs336_scaling.simulate.loss_surface import UNIFORM_LOSS, divergence_margin, expected_loss
from cs336_scaling.simulate.runs import Runs
from cs336_scaling.simulate.runtime import expected_runtime, expected_seconds

_RUNTIME_NOISE = 0.01
_DIVERGENCE_NOISE = 0.1


@dataclass(frozen=True)
class SimulatedRun:
    """What a run shows.

    Attributes:
        val_losses, val_steps, val_seconds: each validation's nats per token, steps done and seconds since the start.
        runtime_seconds: until the end, or until the loss was NaN.
        diverged: whether the loss became NaN; the validations before that are kept.
    """

    val_losses: list[float]
    val_steps: list[int]
    val_seconds: list[float]
    runtime_seconds: float
    diverged: bool


@dataclass(frozen=True)
class World:
    """A loss surface and a machine. The same run always shows the same; another `model_seed` has other noise."""

    seed: int
    hidden: HiddenParameters

    @classmethod
    def from_seed(cls, seed: int) -> "World":
        """The world that a seed names.

        Raises:
            UsageError: the seed is negative.
        """
        if seed < 0:
            raise UsageError(f"the world's seed is {seed}; allowed is any whole number of at least 0")
        return cls(seed, HiddenParameters.draw(seed))

    def expected_loss(self, runs: Sequence[TrainingConfig] | Sequence[LossQuery] | Runs) -> Float[np.ndarray, "*runs"]:
        """Noise-free final losses, nats per token; infinite where the expected run diverges. For evaluation only."""
        runs = self._as_runs(runs)
        margin = divergence_margin(self.hidden, runs)
        return np.where(margin < 0, np.inf, expected_loss(self.hidden, runs))

    def expected_seconds(self, runs: Sequence[TrainingConfig] | Runs) -> Float[np.ndarray, "*runs"]:
        """Noise-free wall-clock times. For evaluation only."""
        return expected_seconds(self.hidden, self._as_runs(runs))

    @staticmethod
    def _as_runs(runs: Sequence[TrainingConfig] | Sequence[LossQuery] | Runs) -> Runs:
        if isinstance(runs, Runs):
            return runs
        return Runs.from_queries(runs) if isinstance(runs[0], LossQuery) else Runs.from_configs(runs)

    def query(self, query: LossQuery) -> float:
        """The loss that a run of the 2025 edition reaches, noise included; a diverged one guesses uniformly."""
        runs = Runs.from_queries([query])
        luck = self._luck(canonical_hash(query))
        if divergence_margin(self.hidden, runs)[0] + _DIVERGENCE_NOISE * luck.standard_normal() < 0:
            return UNIFORM_LOSS
        loss = expected_loss(self.hidden, runs)[0]
        return float(loss * (1 + self.hidden.noise * luck.standard_normal()))

    def simulate(self, config: TrainingConfig) -> SimulatedRun:
        """The whole run, noise included, without regard to `max_runtime_seconds`."""
        # How often and how long one looks does not change what is trained.
        trained = config.model_copy(update={"max_runtime_seconds": 1.0, "val_batch_size": 1, "n_evals": 1})
        luck = self._luck(canonical_hash(trained))
        stability, final_luck, speed, blow_up = (*luck.standard_normal(3), luck.uniform(0.02, 0.5))
        runs = Runs.from_configs([config])
        diverged = bool(divergence_margin(self.hidden, runs)[0] + _DIVERGENCE_NOISE * stability < 0)

        seen = np.arange(1, config.n_evals + 1) / config.n_evals
        losses = expected_loss(self.hidden, runs, seen, _lr_level(config, seen))
        wiggle = luck.standard_normal(config.n_evals) * 0.5
        wiggle[-1] = 0.0
        losses = losses * (1 + self.hidden.noise * (final_luck + wiggle))

        time = expected_runtime(self.hidden, runs)
        slowness = np.exp(_RUNTIME_NOISE * speed)
        steps = np.arange(1, config.n_evals + 1) * (config.num_steps // config.n_evals)
        evals = np.arange(1, config.n_evals + 1)
        seconds = slowness * (time.startup[0] + steps * time.per_step[0] + evals * time.per_eval[0])
        if not diverged:
            return SimulatedRun(losses.tolist(), steps.tolist(), seconds.tolist(), float(seconds[-1]), False)
        kept = int(np.floor(blow_up * config.n_evals))
        end = slowness * (time.startup[0] + blow_up * config.num_steps * time.per_step[0] + kept * time.per_eval[0])
        return SimulatedRun(losses[:kept].tolist(), steps[:kept].tolist(), seconds[:kept].tolist(), float(end), True)

    def optimum(
        self, *, train_flops: float | None = None, seconds: float | None = None, vocab_size: int = 32_000
    ) -> "optimum.Optimum":
        """The true best run for a budget of FLOPs (2025) or of wall-clock seconds (2026). For evaluation only.

        Args:
            train_flops, seconds: the budget; exactly one of them.
            vocab_size: of the 2026 models.

        Raises:
            ValueError: none or both budgets are given, or no model fits.
        """
        if (train_flops is None) == (seconds is None):
            raise ValueError("give exactly one budget: train_flops or seconds")
        if train_flops is not None:
            return optimum.best_query(self.hidden, train_flops)
        return optimum.best_config(self.hidden, seconds, vocab_size)

    def _luck(self, run_hash: str) -> np.random.Generator:
        """The run's noise: the same whenever the same run is asked for."""
        return np.random.default_rng([self.seed, int(run_hash[:16], 16)])


def _lr_level(config: TrainingConfig, seen: np.ndarray) -> np.ndarray:
    """Learning rate over its peak: linear warm-up, then a half cosine to `final_lr_frac`."""
    schedule = config.optimizer_config.lr_scheduler
    warmup, start = schedule.warmup_frac, schedule.init_value / schedule.peak_value
    rising = start + (1 - start) * seen / max(warmup, 1e-12)
    progress = np.clip((seen - warmup) / max(1 - warmup, 1e-12), 0, 1)
    falling = schedule.final_lr_frac + (1 - schedule.final_lr_frac) * (1 + np.cos(np.pi * progress)) / 2
    return np.where(seen < warmup, rising, falling)
