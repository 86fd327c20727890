"""Spring 2025: one blocking query per training run, paid in training FLOPs."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

D_MODEL_RANGE = (64, 1024)
NUM_LAYERS_RANGE = (2, 24)
NUM_HEADS_RANGE = (2, 16)
LEARNING_RATE_RANGE = (1e-4, 1e-3)
BATCH_SIZES = (128, 256)
TRAIN_FLOPS = (*(digit * 10**power for power in range(13, 18) for digit in (1, 3, 6)), 10**18)
"""1e13, 3e13, 6e13, 1e14, … 6e17, 1e18."""


class OutOfRangeError(ValueError):
    """A value of a query is not allowed; its message is the API's."""


def _whole(value: Any) -> Any:
    """Read `1e+16` as a whole number, as the query string of a client that holds a float has it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return int(number) if math.isfinite(number) and number.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]


class LossQuery(BaseModel):
    """One training run: the parameters of `GET /loss` besides the key.

    Raises:
        OutOfRangeError: through `check_ranges`, which the server answers with status 404.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_model: WholeNumber
    num_layers: WholeNumber
    num_heads: WholeNumber
    batch_size: WholeNumber
    learning_rate: float
    train_flops: WholeNumber

    @property
    def num_parameters(self) -> int:
        """Non-embedding parameters, 12 · num_layers · d_model²."""
        return 12 * self.num_layers * self.d_model**2

    @property
    def num_tokens(self) -> float:
        """Training tokens that `train_flops` = 6 N D pays for."""
        return self.train_flops / (6 * self.num_parameters)

    def check_ranges(self) -> "LossQuery":
        """The query itself, if every value is allowed.

        Raises:
            OutOfRangeError: the first value that is not.
        """
        for name, (low, high) in (
            ("d_model", D_MODEL_RANGE),
            ("num_layers", NUM_LAYERS_RANGE),
            ("num_heads", NUM_HEADS_RANGE),
            ("learning_rate", LEARNING_RATE_RANGE),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise OutOfRangeError(f"{name} must be in range [{low}, {high}], got {value}")
        for name, allowed in (("batch_size", BATCH_SIZES), ("train_flops", TRAIN_FLOPS)):
            if getattr(self, name) not in allowed:
                choices = ", ".join(f"{choice:g}" for choice in allowed)
                raise OutOfRangeError(f"{name} must be one of [{choices}], got {getattr(self, name)}")
        return self


class LossResponse(BaseModel):
    """Answer of `GET /loss`: the final loss in nats per token, and all FLOPs the key has used."""

    loss: float
    total_flops_used: float


class PreviousRun(LossQuery):
    """A run of `GET /previous_runs`: the query and its loss."""

    loss: float


class PreviousRuns(BaseModel):
    """Answer of `GET /previous_runs`, the oldest first."""

    previous_runs: list[PreviousRun]


class Message(BaseModel):
    """Answer to a query that is refused."""

    message: str
