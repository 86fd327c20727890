"""The settings of programs that several processes can run together."""

import math
from dataclasses import dataclass

from cs336_alignment.training.config import TrainingConfig
from cs336_basics.command_line import UsageError
from cs336_basics.settings import setting

STRATEGIES = ("none", "ddp", "fsdp")
"""One process; data parallelism; FSDP."""


@dataclass(frozen=True)
class ParallelConfig(TrainingConfig):
    """Settings of the processes that share the work.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    parallel: str = setting("none", "how several processes share what is trained", choices=STRATEGIES)
    processes: int | None = setting(
        None, "processes to start on this machine; torchrun and Slurm say it themselves", type=int,
        shown="1 without parallel, else one per GPU, or 2",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.processes is not None:
            self.check_range("processes", 1, math.inf)
        if self.parallel == "none" and (self.processes or 1) > 1:
            raise UsageError(f"processes is {self.processes}, which needs --parallel ddp or fsdp")
        if self.parallel == "fsdp" and self.compile:
            raise UsageError("compile does not go with fsdp; use one of them")


@dataclass(frozen=True)
class ChunkedHeadConfig(ParallelConfig):
    """With that of a language model's output head.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    head_chunk_tokens: int | None = setting(
        None, "tokens for which the output head is computed at once, to save memory", type=int,
        shown="all of a microbatch",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_chunk_tokens is not None:
            self.check_range("head_chunk_tokens", 1, math.inf)
            if self.parallel == "fsdp":
                # Processes have different numbers of tokens, but must gather the head equally often.
                raise UsageError(
                    "head_chunk_tokens does not go with fsdp; use more gradient_accumulation_steps to save memory"
                )
