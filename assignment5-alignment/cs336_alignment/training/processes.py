"""A process among those that share a run's work."""

from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

Values = TypeVar("Values")


class Processes:
    """This process, which is alone. Those that share the work are a subclass; all of them call each method together.

    Attributes:
        rank, world_size: this process, and how many share the work.
    """

    rank, world_size = 0, 1

    @property
    def writes(self) -> bool:
        """Whether this process writes logs, checkpoints and models."""
        return self.rank == 0

    def share(self, values: Values) -> Values:
        """This process's part of an array or a list that is the same in all: every `world_size`-th value."""
        return values[self.rank :: self.world_size]

    def sum_over_processes(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The sum of every process's value, such as a number of response tokens."""
        return value

    def agree(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag

    def gather(self, values: list[Any]) -> list[Any]:
        """The lists of all processes, one behind the other, in every process."""
        return values


ALONE = Processes()
"""For what is not shared."""
