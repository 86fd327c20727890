"""What the 2026 clients read out of a server's answers.

The server's own models (`cs336_scaling.schemas`) are strict. These are lenient, for answers of servers that say more or
less than ours: unknown keys are passed over, and what only our server says has a default.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from cs336_basics.command_line import UsageError
from cs336_scaling.schemas.edition_2026 import TargetConfig, TrainingConfig


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class Budget(_Answer):
    """Wall-clock seconds: charged or reserved, left, in all."""

    used_seconds: float
    remaining_seconds: float
    total_budget_seconds: float


def _config_or_none(value: Any, validate: ValidatorFunctionWrapHandler) -> TrainingConfig | None:
    """A configuration that our rules do not know must not hide the rest of an experiment."""
    try:
        return validate(value)
    except ValidationError:
        return None


class Experiment(_Answer):
    """One experiment as the server last told it; see `cs336_scaling.schemas.edition_2026.Experiment`."""

    experiment_id: str
    status_type: str
    training_config: Annotated[TrainingConfig | None, WrapValidator(_config_or_none)] = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    queue_position: int | None = None
    val_losses: list[float | None] = []
    val_steps: list[int] = []
    final_val_loss: float | None = None
    runtime_seconds: float | None = None
    charged_seconds: float | None = None
    reserved_seconds: float = 0.0
    failure_reason: str | None = None
    message: str | None = ""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status_type in ("completed", "failed")

    @property
    def loss(self) -> float | None:
        """The final validation loss if the server names it, else the last one of a completed experiment."""
        if self.final_val_loss is not None or self.status_type != "completed":
            return self.final_val_loss
        return self.val_losses[-1] if self.val_losses else None


class Submission(_Answer):
    """What came of a submission. `known` says that the experiment was there before, so nothing was reserved now."""

    experiment_id: str
    budget_summary: Budget
    known: bool = False


class FinalSubmission(_Answer):
    """The final submission that counts."""

    training_config: TargetConfig
    predicted_final_loss: float
    submitted_at: datetime | None = None


def parse(kind: type | Any, answer: Any) -> Any:
    """The answer as `kind`.

    Raises:
        UsageError: it has another form.
    """
    try:
        return TypeAdapter(kind).validate_python(answer)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise UsageError(f"the server does not speak the training API: {place}: {first['msg']}") from None


def parse_experiments(answer: Any) -> list[Experiment]:
    """The experiments of `GET /experiments`, a list or an object that holds one."""
    return parse(list[Experiment], answer.get("experiments", answer) if isinstance(answer, dict) else answer)


def best(experiments: Iterable[Experiment]) -> Experiment | None:
    """The completed experiment with the lowest final loss, if any."""
    return min((one for one in experiments if one.loss is not None), key=lambda one: one.loss, default=None)
