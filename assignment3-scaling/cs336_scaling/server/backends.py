"""What differs between simulating and training, as far as the API can tell."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from cs336_scaling.schemas.edition_2025 import LossQuery
from cs336_scaling.schemas.edition_2026 import AdamWConfig, TrainingConfig
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.simulate.world import World


@dataclass(frozen=True)
class Plan:
    """A simulated experiment's future.

    Attributes:
        outcome: what it will show: `val_losses`, `val_steps`, `val_seconds`, `runtime_seconds`, `failure_reason`,
            `message`; JSON.
        duration: real seconds from its start to its end.
    """

    outcome: dict[str, Any]
    duration: float


class Backend(Protocol):
    """Where losses come from."""

    def check(self, config: TrainingConfig) -> None:
        """Refuse (422) a valid configuration that this backend cannot run."""

    def plan(self, config: TrainingConfig) -> Plan | None:
        """The experiment's future, or None if a worker will really train it."""

    def query(self, query: LossQuery) -> float:
        """The loss of a 2025 run."""


class SimulatedBackend:
    """Asks a world instead of training.

    Args:
        world: the world.
        speed: simulated seconds per real second; infinite for results at once.
    """

    def __init__(self, world: World, speed: float) -> None:
        self._world, self._speed = world, speed

    def check(self, config: TrainingConfig) -> None:
        """Everything that is valid can be simulated."""

    def plan(self, config: TrainingConfig) -> Plan:
        """Simulate the run and cut it off at `max_runtime_seconds`."""
        run = self._world.simulate(config)
        reason, message = None, ""
        runtime = run.runtime_seconds
        if runtime > config.max_runtime_seconds:
            runtime = config.max_runtime_seconds
            reason, message = "timed_out", timed_out_message(config.max_runtime_seconds)
        elif run.diverged:
            reason, message = "diverged", "the training loss became NaN; try a lower learning rate"
        kept = sum(seconds <= runtime for seconds in run.val_seconds)
        outcome = {
            "val_losses": run.val_losses[:kept],
            "val_steps": run.val_steps[:kept],
            "val_seconds": run.val_seconds[:kept],
            "runtime_seconds": runtime,
            "failure_reason": reason,
            "message": message,
        }
        return Plan(outcome, 0.0 if math.isinf(self._speed) else runtime / self._speed)

    def query(self, query: LossQuery) -> float:
        """The world's loss."""
        return self._world.query(query)


class TrainingBackend:
    """Leaves experiments to workers.

    Args:
        tokenizer_vocab_size: ids that the tokenized text needs.
    """

    def __init__(self, tokenizer_vocab_size: int) -> None:
        self._tokenizer_vocab_size = tokenizer_vocab_size

    def check(self, config: TrainingConfig) -> None:
        """Refuse what the trainer of assignment 1 does not do."""
        shape, optimizer = config.architecture_config, config.optimizer_config
        if shape.vocab_size < self._tokenizer_vocab_size:
            raise Refusal(
                422,
                f"architecture_config.vocab_size is {shape.vocab_size}; this server trains on text of a tokenizer with "
                f"{self._tokenizer_vocab_size} tokens, so allowed is that and more",
            )
        if shape.attention_bias:
            raise Refusal(422, "architecture_config.attention_bias is true; this server trains models without biases")
        if isinstance(optimizer, AdamWConfig) and optimizer.eps_root:
            raise Refusal(422, f"optimizer_config.eps_root is {optimizer.eps_root}; this server's AdamW has 0")
        if optimizer.lr_scheduler.init_value:
            raise Refusal(
                422,
                f"lr_scheduler.init_value is {optimizer.lr_scheduler.init_value}; this server warms up from 0",
            )

    def plan(self, config: TrainingConfig) -> None:
        """Nobody knows before."""

    def query(self, query: LossQuery) -> float:
        """Refuse: an answer cannot wait until a model is trained, and a 2025 client would ask again meanwhile."""
        raise Refusal(
            501,
            "GET /loss answers at once, so it works with the simulate backend only; this server really trains: "
            "use POST /submit",
        )


def timed_out_message(max_runtime_seconds: float) -> str:
    """What a time-out says."""
    return f"stopped after max_runtime_seconds = {max_runtime_seconds:g}; the validations before are kept"
