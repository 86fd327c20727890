"""The settings of programs that train a policy on its own rollouts."""

import math
from dataclasses import dataclass

from cs336_alignment.online.rollout_config import RolloutConfig
from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.training.config import MODEL_HELP, TUNED_MODEL
from cs336_basics.settings import setting


@dataclass(frozen=True)
class OnlineConfig(RolloutConfig):
    """Settings of a run that samples, scores and learns; each field's help text is its documentation.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    model: str = setting(TUNED_MODEL, MODEL_HELP)
    num_steps: int = setting(100, "steps of the run; each samples rollouts and learns from them")
    group_size: int = setting(8, "rollouts per question")
    gradient_accumulation_steps: int = setting(1, "microbatches a process computes its share of a training batch in")
    reward_model: str | None = setting(
        None, "folder of a reward model whose score is the reward in training; evaluations keep the reward function",
        type=str, shown="the reward function",
    )  # fmt: skip
    num_examples: int = setting(4096, "training questions to make where no data are given")

    temperature: float = setting(1.0, "sampling temperature of training rollouts")
    top_p: float = setting(1.0, "nucleus of training rollouts: least sum of the probabilities kept")
    min_tokens: int = setting(0, "tokens a response has at least")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_steps", "group_size", "num_examples"):
            self.check_range(name, 1, math.inf)
        self.sampling(seed=0)

    def sampling(self, seed: int) -> SamplingParameters:
        """How training rollouts are sampled."""
        return SamplingParameters(
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            num_samples=self.group_size,
            stop=(self.stop,) if self.stop else (),
            seed=seed,
        )

    def check_shares(self, world_size: int) -> None:
        """Refuse a training batch that the processes' microbatches cannot share evenly.

        Raises:
            UsageError: naming the values and what is allowed.
        """
        name = f"gradient_accumulation_steps {self.gradient_accumulation_steps}"
        if world_size > 1:
            name += f" times {world_size} processes,"
        self.check_divisible("train_batch_size", name, self.gradient_accumulation_steps * world_size)
