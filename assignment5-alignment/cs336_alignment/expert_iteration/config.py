"""The settings of expert iteration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cs336_alignment.online.config import OnlineConfig
from cs336_alignment.training.config import fitted_setting
from cs336_basics.settings import setting


@dataclass(frozen=True)
class ExpertIterationConfig(OnlineConfig):
    """All settings of a run of expert iteration; each field's help text is its documentation.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    SMOKE: ClassVar[Mapping[str, Any]] = {
        "num_steps": 2, "questions_per_step": 8, "group_size": 2, "max_tokens": 16, "eval_examples": 4,
        "num_examples": 16, "eval_every": 1,
    }  # fmt: skip

    num_steps: int | None = fitted_setting(
        8, 5, "expert iteration steps; each samples rollouts and learns from the right ones"
    )
    lr: float | None = fitted_setting(5e-4, 1e-5, "highest learning rate")
    group_size: int = setting(4, "rollouts per question")
    questions_per_step: int = setting(512, "questions that a step samples responses to")
    epochs_per_step: int = setting(1, "times that a step trains on its right responses")
    train_batch_size: int = setting(32, "responses per optimizer update")
    least_reward: float = setting(1.0, "reward from which on a response is right")
    keep_duplicates: bool = setting(False, "train on equal responses to a question as often as they were sampled")
    save_every: int = setting(1, "steps between two checkpoints; 0 for none but the last")
    eval_every: int = setting(1, "steps between two evaluations; 0 for none but the last")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("questions_per_step", "epochs_per_step", "train_batch_size"):
            self.check_range(name, 1, math.inf)
        self.check_range("least_reward", -math.inf, math.inf)
        self.check_shares(1)
