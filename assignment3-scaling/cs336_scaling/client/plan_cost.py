"""What a list of runs would cost, found out without starting any."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Run = TypeVar("Run")


@dataclass(frozen=True)
class PlanCost(Generic[Run]):
    """The price of a plan.

    Attributes:
        unit: "s" of wall clock, or "FLOPs".
        new: the runs that would cost something, in order, and what each costs at most.
        free: the runs that are there already, or stand twice in the plan.
        remaining: what is left of the budget, where the server was asked.
    """

    unit: str
    new: tuple[tuple[Run, float], ...]
    free: tuple[Run, ...]
    remaining: float | None

    @property
    def cost(self) -> float:
        """What all new runs cost together."""
        return sum(cost for _, cost in self.new)

    @property
    def affordable(self) -> int | None:
        """How many of the new runs the budget pays for, taken in order; None if it is unknown."""
        if self.remaining is None:
            return None
        spent, count = 0.0, 0
        for _, cost in self.new:
            spent += cost
            if spent > self.remaining:
                break
            count += 1
        return count

    def sentences(self) -> str:
        """The answer in words."""
        count, free = len(self.new), len(self.free)
        text = f"{count} new run{'' if count == 1 else 's'} would take {self.cost:,.6g} {self.unit}"
        text += f"; {free} {'is' if free == 1 else 'are'} free (repeated)."
        if self.remaining is not None:
            text += f" Left of the budget: {self.remaining:,.6g} {self.unit}, enough for {self.affordable} of them."
        return text
