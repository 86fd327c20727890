"""Settings that the programs which learn from pairs share."""

import math
from dataclasses import dataclass
from typing import get_args

from cs336_alignment.parallel.config import ParallelConfig
from cs336_alignment.preference.data import Template
from cs336_alignment.training.config import MODEL_HELP, TUNED_MODEL, fitted_setting
from cs336_basics.command_line import UsageError
from cs336_basics.settings import setting


@dataclass(frozen=True)
class PairConfig(ParallelConfig):
    """Settings of a program that learns from preference pairs.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    model: str = setting(TUNED_MODEL, MODEL_HELP)
    data: str | None = setting(
        None, "preference pairs: a .jsonl or .jsonl.gz file (HH's form, messages, or prompt, chosen, rejected), or a "
        "folder of such files", type=str, shown="pairs of the arithmetic task made here",
    )  # fmt: skip
    val_data: str | None = setting(
        None, "validation pairs, in one of these forms", type=str, shown="val_pairs of the training pairs, set apart"
    )
    template: str = setting(
        "auto", "where prompts go: `auto` puts the instructions of conversations into the Alpaca template",
        choices=get_args(Template),
    )  # fmt: skip
    num_pairs: int = setting(2000, "pairs made of the default task, besides those for validation")
    val_pairs: int | None = fitted_setting(500, 200, "pairs for validation")
    max_length: int = setting(1024, "longest prompt and response, in tokens; pairs with a longer one are left out")
    batch_size: int = setting(64, "pairs per optimizer step")
    epochs: float = setting(1.0, "passes over the training pairs")
    num_steps: int | None = setting(None, "optimizer steps", type=int, shown="what the epochs come to")
    gradient_accumulation_steps: int = setting(1, "microbatches a process computes its share of a batch in")
    eval_batch_size: int = setting(32, "pairs per forward pass without gradients, in each process")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_pairs", "val_pairs", "batch_size", "eval_batch_size"):
            self.check_range(name, 1, math.inf)
        self.check_range("max_length", 2, math.inf)
        if not 0 < self.epochs < math.inf:
            raise UsageError(f"epochs is {self.epochs}; allowed is any finite number above 0")
        if self.num_steps is not None:
            self.check_range("num_steps", 1, math.inf)
        self.check_shares(world_size=1)

    def check_shares(self, world_size: int) -> None:
        """Refuse a batch that leaves a process without a pair for each of its microbatches.

        Raises:
            UsageError: naming the values and what is allowed.
        """
        if self.gradient_accumulation_steps * world_size > self.batch_size:
            divided = f", divided by {world_size} processes" if world_size > 1 else ""
            raise UsageError(
                f"gradient_accumulation_steps is {self.gradient_accumulation_steps}; allowed are 1 to the batch_size, "
                f"{self.batch_size}{divided}"
            )

    def steps_for(self, num_pairs: int) -> int:
        """Optimizer steps of the run over so many training pairs."""
        return self.num_steps or math.ceil(self.epochs * num_pairs / self.batch_size)
