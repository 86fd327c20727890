"""What the planner talks to: something with a budget that trains what it is given."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from pydantic import BaseModel

Config = TypeVar("Config", bound=BaseModel, contravariant=True)


@dataclass(frozen=True)
class Budget:
    """A budget and what is spent of it: training FLOPs (2025) or seconds (2026)."""

    total: float
    used: float

    @property
    def remaining(self) -> float:
        """What is left."""
        return max(0.0, self.total - self.used)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        loss: final validation loss in nats per token; None if the run failed or diverged.
        cost: what the budget was charged.
        seconds: wall-clock time where the laboratory tells it.
        problem: why there is no loss; empty if there is one.
    """

    loss: float | None
    cost: float
    seconds: float | None = None
    problem: str = ""


class Laboratory(Protocol[Config]):
    """A server, or a simulated world in this process."""

    def budget(self) -> Budget:
        """The budget and what is spent of it."""
        ...

    def submit(self, config: Config) -> Outcome:
        """Train a configuration to its end and wait for it. The same configuration again costs nothing."""
        ...
