"""The settings of supervised fine-tuning."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cs336_alignment.online.rollout_config import RolloutConfig
from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.training.config import fitted_setting
from cs336_basics.command_line import UsageError
from cs336_basics.settings import setting


@dataclass(frozen=True)
class SFTConfig(RolloutConfig):
    """Settings of supervised fine-tuning; each field's help text is its documentation.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    SMOKE: ClassVar[Mapping[str, Any]] = {
        "num_examples": 64,
        "epochs": 1.0,
        "batch_size": 16,
        "val_examples": 32,
        "eval_examples": 8,
        "eval_every": 2,
        "save_every": 2,
    }

    lr: float | None = fitted_setting(2e-3, 2e-5, "highest learning rate")
    schedule: str = setting("cosine", "learning rate after the warm-up", choices=("constant", "cosine", "linear"))
    warmup_steps: int = setting(10, "optimizer steps of linear warm-up")

    packed: bool = setting(
        False, "put prompts and responses into the Alpaca template, pack them without padding, and train on all of it; "
        "else only responses count"
    )  # fmt: skip
    seq_length: int = setting(256, "tokens of a packed sequence")
    max_length: int = setting(1024, "tokens of a prompt and its response when not packed; longer pairs are left out")
    token_cache: str = setting("data/sft_tokens", "folder for token ids of packed files")
    batch_size: int = setting(16, "examples, or packed sequences, per optimizer step")
    epochs: float | None = fitted_setting(15.0, 1.0, "passes over the training data")
    num_steps: int | None = setting(None, "optimizer steps", type=int, shown="what the epochs come to")
    # Few of the default task: enough to teach the form of an answer, and to leave something to reinforcement learning.
    num_examples: int | None = fitted_setting(128, None, "training examples to use, drawn at random", shown="all")
    only_correct: bool = setting(False, "use only examples whose response the reward function finds right")
    loss_normalization: str = setting(
        "token", "what the sum of the responses' losses is divided by: their tokens in the batch, or batch_size times "
        "normalize_constant", choices=("token", "constant"),
    )  # fmt: skip
    normalize_constant: float = setting(1.0, "divisor of each response's loss for --loss_normalization constant")
    val_examples: int = setting(512, "validation examples, or packed sequences, for the validation loss; 0 for all")

    eval_data: str | None = setting(
        None, "held-out questions to answer in evaluations", type=str, shown="those of the default task, or none"
    )
    no_answers: bool = setting(False, "do not answer questions in evaluations")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seq_length", "max_length", "batch_size"):
            self.check_range(name, 1, math.inf)
        self.check_range("val_examples", 0, math.inf)
        for name in ("num_steps", "num_examples"):
            if getattr(self, name) is not None:
                self.check_range(name, 1, math.inf)
        for name in ("epochs", "normalize_constant"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is any finite number above 0")
        self.check_shares(world_size=1)
        if self.packed and self.only_correct:
            raise UsageError("only_correct needs responses with answers; it does not go with packed")
        self.sampling(seed=0)

    def check_shares(self, world_size: int) -> None:
        """Refuse a batch that the processes' microbatches cannot share evenly.

        Raises:
            UsageError: naming the values and what is allowed.
        """
        parts = self.gradient_accumulation_steps * world_size
        self.check_divisible("batch_size", f"gradient_accumulation_steps times processes, {parts},", parts)

    def sampling(self, seed: int) -> SamplingParameters:
        """How evaluations are sampled."""
        return SamplingParameters(
            max_tokens=self.max_tokens,
            temperature=self.eval_temperature,
            stop=(self.stop,) if self.stop else (),
            seed=seed,
        )
