"""The settings of GRPO."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cs336_alignment.grpo.variants import VARIANTS, Variant
from cs336_alignment.online.config import OnlineConfig
from cs336_alignment.policy_gradient.advantages import ADVANTAGE_NORMALIZERS, BASELINES
from cs336_alignment.policy_gradient.aggregation import LOSS_NORMALIZATIONS
from cs336_alignment.policy_gradient.batch import PolicyGradientLoss
from cs336_alignment.policy_gradient.kl import KL_ESTIMATORS
from cs336_alignment.policy_gradient.losses import CLIPPED_METHODS, IMPORTANCE_REWEIGHTING_METHODS
from cs336_alignment.training.config import fitted_setting
from cs336_basics.command_line import UsageError
from cs336_basics.settings import setting

_OF_VARIANT = "the variant's"


@dataclass(frozen=True)
class GRPOConfig(OnlineConfig):
    """All settings of a GRPO run; each field's help text is its documentation.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    SMOKE: ClassVar[Mapping[str, Any]] = {
        "num_steps": 3, "rollout_batch_size": 8, "group_size": 4, "max_tokens": 16, "eval_examples": 4,
        "num_examples": 16, "eval_every": 2,
    }  # fmt: skip

    num_steps: int | None = fitted_setting(80, 200, "steps of the run; each samples rollouts and learns from them")
    lr: float | None = fitted_setting(3e-4, 1e-5, "highest learning rate")
    eval_every: int = setting(5, "steps between two evaluations; 0 for none but the last")
    rollout_batch_size: int = setting(256, "rollouts per step; a multiple of group_size")
    train_batch_size: int | None = setting(
        None, "rollouts per optimizer update; fewer than rollout_batch_size is off-policy", type=int,
        shown="rollout_batch_size",
    )  # fmt: skip
    epochs_per_rollout_batch: int = setting(1, "times that a step trains on its rollouts; more than 1 is off-policy")
    variant: str = setting(
        "grpo_clip", "which policy gradient; the next six flags change parts of it", choices=tuple(VARIANTS)
    )
    baseline: str | None = setting(
        None, "what is subtracted from a group's rewards", type=str, choices=BASELINES, shown=_OF_VARIANT
    )
    advantage_normalizer: str | None = setting(
        None, "what a group's advantages are divided by", type=str, choices=ADVANTAGE_NORMALIZERS, shown=_OF_VARIANT
    )
    importance_reweighting: str | None = setting(
        None, "how old rollouts are reweighted", type=str, choices=IMPORTANCE_REWEIGHTING_METHODS, shown=_OF_VARIANT
    )
    loss_normalization: str | None = setting(
        None, "mean over each sequence and then over sequences, sum by a constant, or mean over all tokens", type=str,
        choices=LOSS_NORMALIZATIONS, shown=_OF_VARIANT,
    )  # fmt: skip
    cliprange: float | None = setting(
        None, "how far ratios may fall below 1, and rise above it unless cliprange_high is given", type=float,
        shown=_OF_VARIANT,
    )  # fmt: skip
    cliprange_high: float | None = setting(None, "how far ratios may rise above 1", type=float, shown=_OF_VARIANT)
    normalization_constant: float | None = setting(
        None, "divisor for the loss normalization constant", type=float, shown="train_batch_size times max_tokens"
    )
    advantage_eps: float = setting(1e-6, "added to what advantages are divided by")
    kl_coefficient: float = setting(0.0, "weight of the KL divergence from the first policy; 0 for none")
    kl_estimator: str = setting("k3", "estimator of that divergence", choices=KL_ESTIMATORS)
    dynamic_sampling: int = setting(
        1, "batches of questions sampled at most to fill a step with groups of unequal rewards; 1 takes all groups"
    )
    overlong_tokens: int = setting(
        0, "tokens before max_tokens in which a penalty on the reward grows to 1; 0 for none"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rollout_batch_size", "epochs_per_rollout_batch", "dynamic_sampling"):
            self.check_range(name, 1, math.inf)
        for name in ("advantage_eps", "kl_coefficient", "overlong_tokens"):
            self.check_range(name, 0, math.inf)
        for name in ("cliprange", "cliprange_high"):
            if getattr(self, name) is not None:
                self.check_range(name, 0, math.inf)
        if self.train_batch_size is None:
            object.__setattr__(self, "train_batch_size", self.rollout_batch_size)
        self.check_range("train_batch_size", 1, math.inf)
        if self.normalization_constant is not None and not self.normalization_constant > 0:
            raise UsageError(f"normalization_constant is {self.normalization_constant}; allowed are numbers above 0")
        if self.overlong_tokens > self.max_tokens:
            raise UsageError(
                f"overlong_tokens is {self.overlong_tokens}; allowed are 0 to max_tokens {self.max_tokens}"
            )
        if self.pieces.advantage_normalizer == "std" and self.group_size == 1:
            raise UsageError(
                "group_size is 1, and advantages are divided by a group's deviation; allowed are 2 and more"
            )
        self.check_divisible("rollout_batch_size", f"group_size {self.group_size}", self.group_size)
        self.check_divisible("rollout_batch_size", f"train_batch_size {self.train_batch_size}", self.train_batch_size)
        self.check_shares(1)

    @property
    def pieces(self) -> Variant:
        """The variant with what was changed of it."""
        variant = VARIANTS[self.variant]
        method = self.importance_reweighting or variant.importance_reweighting
        low = variant.cliprange if self.cliprange is None else self.cliprange
        if low is None and method in CLIPPED_METHODS:
            low = VARIANTS["grpo_clip"].cliprange
        high = variant.cliprange_high if self.cliprange is None else None
        return Variant(
            self.baseline or variant.baseline,
            self.advantage_normalizer or variant.advantage_normalizer,
            method,
            self.loss_normalization or variant.loss_normalization,
            low,
            high if self.cliprange_high is None else self.cliprange_high,
        )

    @property
    def loss(self) -> PolicyGradientLoss:
        """The loss of a training batch."""
        pieces = self.pieces
        return PolicyGradientLoss(
            importance_reweighting_method=pieces.importance_reweighting,
            cliprange=pieces.cliprange,
            cliprange_high=pieces.cliprange_high,
            loss_normalization=pieces.loss_normalization,
            normalization_constant=self.normalization_constant or float(self.train_batch_size * self.max_tokens),
            kl_coefficient=self.kl_coefficient,
            kl_estimator=self.kl_estimator,
            chunk_tokens=self.head_chunk_tokens,
            on_policy=self.updates_per_step == 1,
        )

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates on the rollouts of one step."""
        return self.epochs_per_rollout_batch * (self.rollout_batch_size // self.train_batch_size)
