"""The settings of programs in which a policy answers questions and is graded, be it in training or in evaluations."""

import math
from dataclasses import dataclass

from cs336_alignment.grading.extraction import ANSWER_CLOSE
from cs336_alignment.online.questions import QUESTION_TASKS
from cs336_alignment.online.reward_functions import REWARD_NAMES
from cs336_alignment.parallel.config import ChunkedHeadConfig
from cs336_alignment.rollouts.factory import ENGINES
from cs336_basics.command_line import UsageError
from cs336_basics.settings import setting


@dataclass(frozen=True)
class RolloutConfig(ChunkedHeadConfig):
    """Settings of questions, grading, and the rollout engine.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    task: str = setting("default", "form of the files of questions", choices=QUESTION_TASKS)
    prompt: str | None = setting(
        None,
        "prompt template for questions: a name or a file",
        type=str,
        shown="r1_zero; the default task and countdown have their own",
    )
    reward: str | None = setting(
        None, "reward function", type=str, choices=REWARD_NAMES, shown="what fits the task and the prompt"
    )
    thorough_grading: bool = setting(False, "ask math-verify too where the quick comparison finds an answer wrong")

    engine: str = setting("hf", "what samples rollouts", choices=ENGINES)
    max_tokens: int = setting(64, "tokens a response has at most")
    stop: str = setting(ANSWER_CLOSE, "text that ends a response, and stays in it; empty for none")
    generation_batch_size: int = setting(256, "responses that the hf engine samples at once, in each process")
    rollout_device: str | None = setting(
        None, "where rollouts are sampled, such as cuda:1", type=str,
        shown="the policy's device; for vllm the first GPU that no process trains on, if there is one",
    )  # fmt: skip
    gpu_memory_utilization: float | None = setting(
        None, "share of its device's memory that vllm takes", type=float, shown="0.85 of a GPU's, 0.2 of main memory"
    )
    server_url: str = setting("http://localhost:8000", "address of the server of the engine vllm-server")

    eval_examples: int = setting(128, "held-out questions of an evaluation; 0 for all")
    eval_temperature: float = setting(0.0, "sampling temperature of evaluations; 0 is greedy")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_range("generation_batch_size", 1, math.inf)
        for name in ("eval_examples", "eval_temperature"):
            self.check_range(name, 0, math.inf)
        if self.gpu_memory_utilization is not None and not 0 < self.gpu_memory_utilization <= 1:
            raise UsageError(
                f"gpu_memory_utilization is {self.gpu_memory_utilization}; allowed are numbers above 0, up to 1"
            )

    def check_divisible(self, name: str, divisor_name: str, divisor: int) -> None:
        """Refuse a batch that cannot be divided evenly.

        Raises:
            UsageError: naming both values and what is allowed.
        """
        value = getattr(self, name)
        if value % divisor:
            raise UsageError(
                f"{name} is {value}, which {divisor_name} does not divide; allowed are multiples of {divisor}"
            )
