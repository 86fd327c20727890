"""Experiments of the 2026 edition as clients see them: submitting, looking, and the budget."""

import heapq
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from cs336_scaling.schemas.canonical import canonical_hash
from cs336_scaling.schemas.edition_2026 import BudgetSummary, Experiment, SubmitResponse, TrainingConfig
from cs336_scaling.server.accounts import Account, lock_user
from cs336_scaling.server.backends import Backend
from cs336_scaling.server.database import Database
from cs336_scaling.server.endings import end_experiment
from cs336_scaling.server.leases import LeaseBook
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.server.tables import ExperimentRow

UNFINISHED = ("queued", "running")


class ExperimentBook:
    """The experiments of all users.

    Args:
        database: where they are kept.
        backend: simulates or trains.
        leases: knows which workers have died.
        slots: simulated experiments of one user that run at the same time.
        clock: seconds since 1970.
    """

    def __init__(
        self, database: Database, backend: Backend, leases: LeaseBook, slots: int, clock: Callable[[], float]
    ) -> None:
        self._database, self._backend, self._leases = database, backend, leases
        self._slots, self._clock = slots, clock

    def submit(self, account: Account, config: TrainingConfig) -> SubmitResponse:
        """Queue an experiment and reserve its time, in one transaction.

        Raises:
            Refusal: 409, the user has submitted this configuration before; 400, the budget does not cover it; 422, the
                backend cannot run it. Nothing is reserved then.
        """
        self._backend.check(config)
        plan = self._backend.plan(config)
        self.settle()
        hashed, now = canonical_hash(config), self._clock()
        with self._database.writing() as session:
            user = lock_user(session, account.id)
            mine = ExperimentRow.user_id == user.id
            same = session.scalar(select(ExperimentRow.id).where(mine, ExperimentRow.config_hash == hashed))
            if same is not None:
                raise Refusal(
                    409, f"this configuration was submitted before, as experiment {same}; nothing is reserved"
                )
            left = user.budget_seconds - seconds_used(session, user.id)
            if config.max_runtime_seconds > left:
                raise Refusal(
                    400,
                    f"max_runtime_seconds is {config.max_runtime_seconds:g}, but {left:g} seconds of the budget of "
                    f"{user.budget_seconds:g} remain",
                )
            row = ExperimentRow(
                id=secrets.token_hex(6),
                user_id=user.id,
                config_hash=hashed,
                config=config.model_dump(mode="json"),
                max_runtime_seconds=config.max_runtime_seconds,
                submitted_at=now,
            )
            if plan is not None:
                row.planned = plan.outcome
                row.starts_at = self._free_slot(session, user.id, now)
                row.ends_at = row.starts_at + plan.duration
            session.add(row)
            session.flush()
            return SubmitResponse(experiment_id=row.id, budget_summary=_summary(session, user.id, user.budget_seconds))

    def _free_slot(self, session: Session, user_id: int, now: float) -> float:
        """When one of the user's slots is free for a simulated experiment."""
        ends = session.scalars(
            select(ExperimentRow.ends_at).where(ExperimentRow.user_id == user_id, ExperimentRow.status.in_(UNFINISHED))
        ).all()
        return max(now, heapq.nlargest(self._slots, ends)[-1]) if len(ends) >= self._slots else now

    def budget(self, account: Account) -> BudgetSummary:
        """The user's budget now."""
        self.settle()
        with self._database.reading() as session:
            return _summary(session, account.id, account.budget_seconds)

    def all(self, account: Account) -> list[Experiment]:
        """The user's experiments, the oldest first."""
        self.settle()
        with self._database.reading() as session:
            rows = select(ExperimentRow).where(ExperimentRow.user_id == account.id).order_by(ExperimentRow.number)
            waiting = self._waiting(session)
            return [self._view(row, waiting) for row in session.scalars(rows)]

    def get(self, account: Account, experiment_id: str) -> Experiment:
        """One experiment of the user.

        Raises:
            Refusal: 404, the user has no such experiment.
        """
        self.settle()
        with self._database.reading() as session:
            row = session.scalar(
                select(ExperimentRow).where(ExperimentRow.user_id == account.id, ExperimentRow.id == experiment_id)
            )
            if row is None:
                raise Refusal(404, f"this key has no experiment {experiment_id}")
            return self._view(row, self._waiting(session))

    def settle(self) -> None:
        """End simulated experiments whose time has come, and take experiments back from workers that died.

        Everything that looks at experiments calls this first, so nothing depends on a process that runs all the time:
        after a kill the next look finds the same.
        """
        now = self._clock()
        due = select(ExperimentRow).where(ExperimentRow.status.in_(UNFINISHED), ExperimentRow.ends_at <= now)
        with self._database.reading() as session:
            nothing_due = session.scalar(due.with_only_columns(ExperimentRow.number).limit(1)) is None
        if not nothing_due:
            with self._database.writing() as session:
                for row in session.scalars(due.with_for_update()):
                    planned = row.planned
                    row.started_at = row.starts_at
                    row.val_losses, row.val_steps = planned["val_losses"], planned["val_steps"]
                    row.runtime_seconds = planned["runtime_seconds"]
                    end_experiment(row, planned["failure_reason"], planned["message"], row.ends_at)
        self._leases.reclaim()

    @staticmethod
    def _waiting(session: Session) -> Sequence[Row]:
        """`number`, `user_id` and `starts_at` of all queued experiments."""
        columns = select(ExperimentRow.number, ExperimentRow.user_id, ExperimentRow.starts_at)
        return session.execute(columns.where(ExperimentRow.status == "queued")).all()

    def _view(self, row: ExperimentRow, waiting: Sequence[Row]) -> Experiment:
        """What the client may see at this moment."""
        now = self._clock()
        status, losses, steps = row.status, row.val_losses, row.val_steps
        started_at, runtime = row.started_at, row.runtime_seconds
        if row.planned is not None and status in UNFINISHED:
            # The queue of simulated experiments is each user's own.
            waiting = [other for other in waiting if other.user_id == row.user_id and other.starts_at > now]
            if row.starts_at <= now:
                status, started_at = "running", row.starts_at
                done = (now - row.starts_at) / max(row.ends_at - row.starts_at, 1e-9)
                runtime = min(done, 1.0) * row.planned["runtime_seconds"]
                shown = sum(seconds <= runtime for seconds in row.planned["val_seconds"])
                losses, steps = row.planned["val_losses"][:shown], row.planned["val_steps"][:shown]
        position = None
        if status == "queued":
            position = 1 + sum(other.number < row.number for other in waiting)
        return Experiment.model_validate(
            {
                "experiment_id": row.id,
                "status_type": status,
                "training_config": row.config,
                "submitted_at": _moment(row.submitted_at),
                "started_at": _moment(started_at),
                "finished_at": _moment(row.finished_at),
                "queue_position": position,
                "val_losses": losses,
                "val_steps": steps,
                "final_val_loss": losses[-1] if status == "completed" else None,
                "runtime_seconds": runtime,
                "charged_seconds": row.charged_seconds,
                "reserved_seconds": 0.0 if row.charged_seconds is not None else row.max_runtime_seconds,
                "failure_reason": row.failure_reason,
                "message": row.message,
            }
        )


def seconds_used(session: Session, user_id: int) -> float:
    """Seconds of the user's budget that are charged or reserved."""
    each = func.coalesce(ExperimentRow.charged_seconds, ExperimentRow.max_runtime_seconds)
    return float(session.scalar(select(func.coalesce(func.sum(each), 0.0)).where(ExperimentRow.user_id == user_id)))


def _summary(session: Session, user_id: int, total: float) -> BudgetSummary:
    used = seconds_used(session, user_id)
    return BudgetSummary(used_seconds=used, remaining_seconds=total - used, total_budget_seconds=total)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
