"""The 2026 edition's runs: a whole training configuration, paid by the seconds it takes."""

import numpy as np

from cs336_scaling.planner.laboratory import Outcome
from cs336_scaling.planner.runtime_model import RuntimeModel, Work
from cs336_scaling.planner.space import ASPECT, Choice
from cs336_scaling.planner.surrogate import Settings
from cs336_scaling.schemas.edition_2026 import ArchitectureConfig, TargetConfig, TrainingConfig
from cs336_scaling.schemas.limits import BUDGET_2026_SECONDS, SEQUENCE_LENGTH, TARGET_2026_SECONDS

HEAD_DIM = 64
_HEADS = np.unique(np.round(np.geomspace(1, 64, 34))).astype(int)
_BATCHES = tuple(int(base * 2**power) for power in range(3, 11) for base in (1, 1.5))  # 8, 12, 16, 24, … 1536
_FEED_FORWARD = 8 / 3
"""Makes SwiGLU's three matrices as large as a plain layer's two of 4 · width (Shazeer 2020, arXiv:2002.05202)."""


class WallClockSpace:
    """Models of head dimension 64 with width / depth near 64; runs cost seconds, which a runtime model foretells.

    Settings that are not searched: cosine schedule down to 0 after 3 % of warm-up, weight decay 0.1, betas 0.9 and
    0.95, gradient norm 1, untied embeddings.

    Args:
        target: seconds of the run that is planned for.
        vocab_size: of all models.
        widest: largest hidden_size considered.
        dtype: "bfloat16" or "float32".
        largest_batch: largest batch considered, in sequences of 512 tokens.
    """

    edition, unit = "2026", "s"
    sweep_lrs: tuple[float, ...] = (5e-4, 1.3e-3, 3.2e-3, 8e-3)
    sweep_share = 0.0025
    interval_factor = 0.95
    lr_range = (1e-5, 3e-2)

    def __init__(
        self,
        target: float = TARGET_2026_SECONDS,
        *,
        vocab_size: int = 32_000,
        widest: int = 4096,
        dtype: str = "bfloat16",
        largest_batch: int = 1536,
    ) -> None:
        self.target = target
        self.sweep_batches: tuple[int, ...] = tuple(min(batch, largest_batch) for batch in (32, 128))
        self._vocab_size, self._dtype = vocab_size, dtype
        self._shapes: dict[int, ArchitectureConfig] = {}
        self._choices = [
            Choice(int(heads) * HEAD_DIM, batch)
            for heads in _HEADS for batch in _BATCHES if heads * HEAD_DIM <= widest and batch <= largest_batch
        ]  # fmt: skip
        shapes = [self.shape(choice.width) for choice in self._choices]
        self._work = Work.stack([Work.of(s, choice.batch) for s, choice in zip(shapes, self._choices, strict=True)])
        self._sizes = (
            np.array([float(shape.num_block_parameters) for shape in shapes]),
            np.array([float(shape.num_embedding_parameters) for shape in shapes]),
            np.array([float(choice.batch * SEQUENCE_LENGTH) for choice in self._choices]),
        )
        self.runtime = RuntimeModel()

    def shape(self, width: int) -> ArchitectureConfig:
        """The model of a width."""
        if width not in self._shapes:
            self._shapes[width] = self._new_shape(width)
        return self._shapes[width]

    def _new_shape(self, width: int) -> ArchitectureConfig:
        heads = width // HEAD_DIM
        return ArchitectureConfig.model_validate({
            "head_dim": HEAD_DIM, "hidden_size": width, "intermediate_size": round(width * _FEED_FORWARD / 8) * 8,
            "num_attention_heads": heads, "num_key_value_heads": heads,
            "num_hidden_layers": max(1, round(width / ASPECT)), "vocab_size": self._vocab_size, "dtype": self._dtype,
        })  # fmt: skip

    def level(self, cost: float) -> float:
        """Any number of seconds from 1 to the API's limit."""
        return min(cost, BUDGET_2026_SECONDS) if cost >= 1 else 0.0

    def _steps(self, work: Work, cost: float, for_target: bool) -> np.ndarray:
        if not for_target:
            return self.runtime.steps_in(work, cost)
        # A run that does not end in time is worth nothing: leave two standard deviations.
        unknown = self.runtime.relative_sd(work, self.runtime.steps_in(work, cost))
        return self.runtime.steps_in(work, cost * np.exp(-2 * np.hypot(unknown, 0.01)))

    def choices(self, cost: float, for_target: bool = False) -> tuple[list[Choice], Settings]:
        """All widths and batches that make at least 30 steps in a time (the very smallest in any)."""
        steps = self._steps(self._work, cost, for_target)
        enough = steps >= 30
        enough[0] = True
        blocks, embeddings, batch = (column[enough] for column in self._sizes)
        found = [choice for choice, kept in zip(self._choices, enough, strict=True) if kept]
        return found, Settings(blocks, embeddings, steps[enough] * batch, batch, np.ones(len(found)))

    def config(self, choice: Choice, lr: float, cost: float, for_target: bool = False) -> TrainingConfig:
        """The experiment; the server stops it at 1.25 times its expected time, a target's at the target."""
        steps = int(self._steps(Work.of(self.shape(choice.width), choice.batch), cost, for_target))
        values = {
            "architecture_config": self.shape(choice.width).model_dump(),
            "optimizer_config": {
                "lr_scheduler": {
                    "peak_value": float(np.clip(lr, *self.lr_range)),
                    "final_lr_frac": 0.0,
                    "warmup_frac": 0.03,
                }
            },
            "train_batch_size": choice.batch,
            "n_evals": 1,
            "total_train_tokens": steps * choice.batch * SEQUENCE_LENGTH,
            "max_runtime_seconds": cost if for_target else self._limit(choice, steps),
        }
        return (TargetConfig if for_target else TrainingConfig).model_validate(values)

    def _limit(self, choice: Choice, steps: int) -> float:
        seconds = self.runtime.seconds(Work.of(self.shape(choice.width), choice.batch), steps)
        return float(np.clip(np.ceil(1.25 * seconds + 5), 1.0, BUDGET_2026_SECONDS))

    def settings(self, config: TrainingConfig) -> Settings:
        """One run."""
        shape = config.architecture_config
        values = (
            shape.num_block_parameters, shape.num_embedding_parameters, config.total_train_tokens,
            config.train_batch_size * SEQUENCE_LENGTH, config.optimizer_config.lr_scheduler.peak_value,
        )  # fmt: skip
        return Settings(*(np.array([float(value)]) for value in values))

    def reserve(self, config: TrainingConfig) -> float:
        """The seconds that the server reserves."""
        return config.max_runtime_seconds

    def learn(self, config: TrainingConfig, outcome: Outcome) -> str:
        """The runtime model learns from every run that was not cut short by a divergence or an error."""
        stopped = outcome.problem == "timed_out"
        if outcome.seconds is not None and (outcome.loss is not None or stopped):
            self.runtime.learn(config, outcome.seconds, stopped)
        if outcome.loss is None:
            return outcome.problem or "failed"
        return "diverged" if outcome.loss > 0.97 * np.log(self._vocab_size) else ""
