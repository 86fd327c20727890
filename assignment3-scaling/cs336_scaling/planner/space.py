"""What can be trained for a cost: the choices of an edition, as the planner sees them."""

from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from cs336_scaling.planner.laboratory import Outcome
from cs336_scaling.planner.surrogate import Settings

ASPECT = 64
"""Width over depth. Kaplan et al. 2020 (arXiv:2001.08361, section 3.1) found the loss to hardly depend on it."""


@dataclass(frozen=True)
class Choice:
    """A model's width (its depth follows) and a batch size in sequences."""

    width: int
    batch: int


class Space(Protocol):
    """An edition's runs. Costs are in the unit of its budget.

    Attributes:
        edition, unit: "2025" and FLOPs, or "2026" and s.
        target: the cost that is planned for.
        sweep_lrs, sweep_batches, sweep_share: the sweep's learning rates, batches, and each run's share of the budget.
        interval_factor: what the posterior's standard deviation is multiplied by, since no form is exact and Laplace's
            approximation is one. Chosen on tuning worlds alone: with it the 90 % interval held the truth in 45 of 50 of
            either edition (seeds 1000 to 1049); `benchmarks/planner.py` prints the factor to choose.
        lr_range: the learning rates that are allowed.
    """

    edition: str
    unit: str
    target: float
    sweep_lrs: tuple[float, ...]
    sweep_batches: tuple[int, ...]
    sweep_share: float
    interval_factor: float
    lr_range: tuple[float, float]

    def level(self, cost: float) -> float:
        """The largest cost of one run that is allowed and at most `cost`; 0 if there is none."""
        ...

    def choices(self, cost: float, for_target: bool = False) -> tuple[list[Choice], Settings]:
        """All models and batches that may be trained for a cost, with what they come to (at a learning rate of 1)."""
        ...

    def config(self, choice: Choice, lr: float, cost: float, for_target: bool = False) -> BaseModel:
        """The configuration that trains a choice for a cost."""
        ...

    def settings(self, config: BaseModel) -> Settings:
        """What a configuration comes to: one run."""
        ...

    def reserve(self, config: BaseModel) -> float:
        """What a configuration may cost at most."""
        ...

    def learn(self, config: BaseModel, outcome: Outcome) -> str:
        """Take an answer into account; returns why it cannot be used, or nothing."""
        ...
