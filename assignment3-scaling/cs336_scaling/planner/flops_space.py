"""The 2025 edition's runs: width, depth, heads, batch size, learning rate, and one of the listed training FLOPs."""

import numpy as np

from cs336_scaling.fitting.runs import FLOPS_PER_PARAMETER_AND_TOKEN
from cs336_scaling.planner.laboratory import Outcome
from cs336_scaling.planner.space import ASPECT, Choice
from cs336_scaling.planner.surrogate import Settings
from cs336_scaling.schemas.edition_2025 import BATCH_SIZES, LEARNING_RATE_RANGE, TRAIN_FLOPS, LossQuery
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH, TARGET_2025_FLOPS, VOCABULARY_2025

_QUERY_WIDTHS = range(128, 1025, 64)
_TARGET_WIDTHS = range(128, 2049, 64)
_UNIFORM = float(np.log(VOCABULARY_2025))


class FlopsSpace:
    """Models of head dimension 64 with width / depth near 64; runs cost their training FLOPs."""

    edition, unit = "2025", "FLOPs"
    sweep_lrs: tuple[float, ...] = (2.5e-4, 5e-4, 1e-3)
    sweep_batches: tuple[int, ...] = BATCH_SIZES
    sweep_share = 0.0015
    interval_factor = 1.3
    lr_range = LEARNING_RATE_RANGE

    def __init__(self, target: float = TARGET_2025_FLOPS) -> None:
        self.target = target

    def level(self, cost: float) -> float:
        """The largest listed FLOPs up to `cost`."""
        return float(max((flops for flops in TRAIN_FLOPS if flops <= cost * (1 + 1e-9)), default=0))

    def _query(self, choice: Choice, lr: float, cost: float) -> LossQuery:
        width = choice.width
        return LossQuery(
            d_model=width, num_layers=max(2, round(width / ASPECT)), num_heads=min(16, width // 64),
            batch_size=choice.batch, learning_rate=lr, train_flops=int(cost),
        )  # fmt: skip

    def choices(self, cost: float, for_target: bool = False) -> tuple[list[Choice], Settings]:
        """Widths in steps of 64 with either batch size; only a target's may be wider than the API's range."""
        found = [Choice(w, b) for w in (_TARGET_WIDTHS if for_target else _QUERY_WIDTHS) for b in BATCH_SIZES]
        blocks = np.array([float(self._query(choice, 1e-3, cost).num_parameters) for choice in found])
        batch = np.array([float(choice.batch * SEQUENCE_LENGTH) for choice in found])
        tokens = cost / (FLOPS_PER_PARAMETER_AND_TOKEN * blocks)
        return found, Settings(blocks, np.zeros_like(blocks), tokens, batch, np.ones_like(blocks))

    def config(self, choice: Choice, lr: float, cost: float, for_target: bool = False) -> LossQuery:
        """The query; only a target's is outside the API's ranges."""
        query = self._query(choice, float(np.clip(lr, *self.lr_range)), cost)
        return query if for_target else query.check_ranges()

    def settings(self, config: LossQuery) -> Settings:
        """One run; embeddings do not count in this edition."""
        values = (config.num_parameters, 0.0, config.num_tokens, config.batch_size * SEQUENCE_LENGTH)
        return Settings(*(np.array([float(value)]) for value in values), lr=np.array([config.learning_rate]))

    def reserve(self, config: LossQuery) -> float:
        """A run costs its training FLOPs."""
        return float(config.train_flops)

    def learn(self, config: LossQuery, outcome: Outcome) -> str:
        """A run that guesses uniformly has diverged; nothing else is to be learned about costs."""
        if outcome.loss is None:
            return outcome.problem
        return "diverged" if outcome.loss > 0.97 * _UNIFORM else ""
