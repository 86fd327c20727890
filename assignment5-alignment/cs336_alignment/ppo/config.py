"""The settings of PPO."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cs336_alignment.online.config import OnlineConfig
from cs336_alignment.training.config import fitted_setting
from cs336_basics.command_line import UsageError
from cs336_basics.settings import setting


@dataclass(frozen=True)
class PPOConfig(OnlineConfig):
    """All settings of a PPO run; each field's help text is its documentation.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    SMOKE: ClassVar[Mapping[str, Any]] = {
        "num_steps": 2, "rollout_batch_size": 8, "train_batch_size": 4, "group_size": 2, "max_tokens": 16,
        "eval_examples": 4, "num_examples": 16,
    }  # fmt: skip

    parallel: str = setting(
        "none", "how several processes share the work; each holds policy and value function whole",
        choices=("none", "ddp"),
    )  # fmt: skip
    num_steps: int | None = fitted_setting(60, 200, "steps of the run; each samples rollouts and learns from them")
    lr: float | None = fitted_setting(3e-4, 1e-6, "highest learning rate")
    eval_every: int = setting(5, "steps between two evaluations; 0 for none but the last")
    group_size: int = setting(4, "rollouts per question")
    rollout_batch_size: int = setting(128, "rollouts per step; a multiple of group_size")
    train_batch_size: int = setting(64, "rollouts per optimizer update; must divide rollout_batch_size")
    epochs_per_rollout_batch: int = setting(2, "times that a step trains on its rollouts")
    critic: str = setting(
        "shared", "body of the value function: the policy's own, or a second one that starts as a copy of it",
        choices=("shared", "separate"),
    )  # fmt: skip
    gamma: float = setting(1.0, "discount of later rewards, per token")
    gae_lambda: float = setting(0.95, "lambda of generalized advantage estimation")
    cliprange: float = setting(0.2, "how far ratios may leave 1")
    value_cliprange: float = setting(0.2, "how far values may leave the old ones; 0 for no clipping")
    value_coefficient: float = setting(0.5, "weight of the value loss")
    entropy_coefficient: float = setting(0.0, "weight of the entropy that is added to what is maximized")
    kl_coefficient: float = setting(0.02, "penalty per nat of divergence from the first policy; 0 for none")
    kl_target: float | None = setting(
        None, "divergence in nats per response that the penalty is adapted to", type=float, shown="a fixed penalty"
    )
    keep_advantages: bool = setting(False, "do not shift and scale a step's advantages to mean 0 and deviation 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rollout_batch_size", "train_batch_size", "epochs_per_rollout_batch"):
            self.check_range(name, 1, math.inf)
        for name in ("cliprange", "value_cliprange", "value_coefficient", "entropy_coefficient", "kl_coefficient"):
            self.check_range(name, 0, math.inf)
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed are numbers from 0 to 1")
        if self.kl_target is not None and not (0 < self.kl_target < math.inf and self.kl_coefficient):
            raise UsageError(
                f"kl_target is {self.kl_target} with a kl_coefficient of {self.kl_coefficient}; allowed are finite "
                "numbers above 0, for both"
            )
        self.check_divisible("rollout_batch_size", f"group_size {self.group_size}", self.group_size)
        self.check_divisible("rollout_batch_size", f"train_batch_size {self.train_batch_size}", self.train_batch_size)
        if self.gradient_accumulation_steps > self.train_batch_size:
            raise UsageError(
                f"gradient_accumulation_steps is {self.gradient_accumulation_steps}; allowed are 1 to the "
                f"train_batch_size, {self.train_batch_size}"
            )

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates on the rollouts of one step."""
        return self.epochs_per_rollout_batch * (self.rollout_batch_size // self.train_batch_size)
