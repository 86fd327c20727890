"""Experiments that workers really train: who has which, and what becomes of it when a worker dies.

A worker that takes an experiment gets a lease, a random word that stands in the experiment's row until it expires or is
replaced. Every report names its lease, and counts only if that lease is still in force, in one transaction. So two
workers can never both report on an experiment, however late a message of the one that was given up comes.

    queued --claim--> running --finish--> completed or failed (charged)
       ^                 |
       +--lease expired--+     (kept: runtime, validations; the next worker goes on from the last checkpoint)
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.server.database import Database
from cs336_scaling.server.endings import end_experiment
from cs336_scaling.server.tables import ExperimentRow


class LeaseLost(Exception):
    """The experiment belongs to somebody else by now, or is finished."""


@dataclass(frozen=True)
class Claim:
    """A worker's right to train an experiment; `runtime_seconds` is what earlier workers spent on it."""

    experiment_id: str
    config: TrainingConfig
    lease: str
    runtime_seconds: float


class LeaseBook:
    """The leases of all experiments.

    Args:
        database: where they are kept.
        lease_seconds: how long a lease lasts after a sign of life.
        max_attempts: workers an experiment may cost without showing a validation.
        clock: seconds since 1970; the machines of server and workers must agree on it to within `lease_seconds`.
    """

    def __init__(self, database: Database, lease_seconds: float, max_attempts: int, clock: Callable[[], float]) -> None:
        self._database, self._lease_seconds = database, lease_seconds
        self._max_attempts, self._clock = max_attempts, clock

    def claim(self, worker: str) -> Claim | None:
        """Take the experiment that waits longest, or None."""
        self.reclaim()
        waiting = (
            select(ExperimentRow)
            .where(ExperimentRow.status == "queued", ExperimentRow.planned.is_(None))
            .order_by(ExperimentRow.number)
            .limit(1)
        )
        now = self._clock()
        with self._database.writing() as session:
            row = session.scalar(waiting.with_for_update(skip_locked=True))
            if row is None:
                return None
            row.status, row.worker, row.lease = "running", worker, secrets.token_hex(16)
            row.lease_expires_at = now + self._lease_seconds
            row.started_at = now if row.started_at is None else row.started_at
            row.attempts += 1
            return Claim(row.id, TrainingConfig.model_validate(row.config), row.lease, row.runtime_seconds)

    def renew(self, claim: Claim, runtime_seconds: float, val_losses: list[float], val_steps: list[int]) -> None:
        """A sign of life, with what there is so far.

        Raises:
            LeaseLost: the worker must stop.
        """
        with self._database.writing() as session:
            row = self._held(session, claim)
            _report(row, runtime_seconds, val_losses, val_steps)
            row.lease_expires_at = self._clock() + self._lease_seconds

    def finish(
        self,
        claim: Claim,
        runtime_seconds: float,
        val_losses: list[float],
        val_steps: list[int],
        failure_reason: str | None = None,
        message: str = "",
    ) -> None:
        """End the experiment and charge it.

        Raises:
            LeaseLost: it is not this worker's to end; nothing happens.
        """
        with self._database.writing() as session:
            row = self._held(session, claim)
            _report(row, runtime_seconds, val_losses, val_steps)
            end_experiment(row, failure_reason, message, self._clock())

    def give_back(self, claim: Claim, runtime_seconds: float, val_losses: list[float], val_steps: list[int]) -> None:
        """Put the experiment back into the queue; it counts as no attempt.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        with self._database.writing() as session:
            row = self._held(session, claim)
            _report(row, runtime_seconds, val_losses, val_steps)
            row.attempts -= 1
            _requeue(row)

    def reclaim(self, worker: str | None = None) -> None:
        """Take experiments back whose lease has expired, and those of `worker`, which is known to be dead.

        They go back to the front of the queue; one that has cost `max_attempts` workers fails, charged with the runtime
        it had.
        """
        now = self._clock()
        lost = (ExperimentRow.lease_expires_at <= now) | (ExperimentRow.worker == worker)
        rows = select(ExperimentRow).where(ExperimentRow.status == "running", lost)
        with self._database.reading() as session:
            if session.scalar(rows.with_only_columns(ExperimentRow.number).limit(1)) is None:
                return
        with self._database.writing() as session:
            for row in session.scalars(rows.with_for_update()):
                if row.attempts < self._max_attempts:
                    _requeue(row)
                    continue
                end_experiment(
                    row, "error", f"{row.attempts} workers died on this experiment; it may be submitted again", now
                )

    def is_unfinished(self, experiment_id: str) -> bool:
        """Whether the experiment is queued or running."""
        with self._database.reading() as session:
            charged = session.scalar(select(ExperimentRow.charged_seconds).where(ExperimentRow.id == experiment_id))
            return charged is None

    @staticmethod
    def _held(session: Session, claim: Claim) -> ExperimentRow:
        """The claimed row, locked.

        An expired lease that nobody took notice of is still in force: the worker was late, and nobody else began.
        """
        row = session.scalar(
            select(ExperimentRow)
            .where(
                ExperimentRow.id == claim.experiment_id,
                ExperimentRow.lease == claim.lease,
                ExperimentRow.status == "running",
            )
            .with_for_update()
        )
        if row is None:
            raise LeaseLost(claim.experiment_id)
        return row


def _report(row: ExperimentRow, runtime_seconds: float, val_losses: list[float], val_steps: list[int]) -> None:
    if len(val_losses) > len(row.val_losses):
        row.attempts = 1  # it gets on: workers that died before do not count any more
    if len(val_losses) >= len(row.val_losses):
        # A run that went back to its last checkpoint repeats the same numbers: nothing that was seen is taken back.
        row.val_losses, row.val_steps = list(val_losses), list(val_steps)
    row.runtime_seconds = runtime_seconds


def _requeue(row: ExperimentRow) -> None:
    row.status = "queued"
    row.worker = row.lease = row.lease_expires_at = None
