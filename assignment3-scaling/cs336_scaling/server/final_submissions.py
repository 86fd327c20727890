"""Final submissions: all are kept, a user's last one counts."""

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import select

from cs336_scaling.schemas.edition_2026 import FinalSubmission, FinalSubmissionRequest
from cs336_scaling.server.accounts import Account
from cs336_scaling.server.database import Database
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.server.tables import FinalSubmissionRow


class FinalSubmissionBook:
    """The final submissions of all users; `clock` gives seconds since 1970."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def put(self, account: Account, submission: FinalSubmissionRequest) -> FinalSubmission:
        """Keep a submission, which counts from now on."""
        row = FinalSubmissionRow(
            user_id=account.id,
            config=submission.training_config.model_dump(mode="json"),
            predicted_final_loss=submission.predicted_final_loss,
            submitted_at=self._clock(),
        )
        with self._database.writing() as session:
            session.add(row)
        return _view(row)

    def get(self, account: Account) -> FinalSubmission:
        """The user's last submission.

        Raises:
            Refusal: 404, there is none.
        """
        newest = select(FinalSubmissionRow).order_by(FinalSubmissionRow.id.desc()).limit(1)
        with self._database.reading() as session:
            row = session.scalar(newest.where(FinalSubmissionRow.user_id == account.id))
            if row is None:
                raise Refusal(404, "there is no final submission of this key yet")
            return _view(row)


def _view(row: FinalSubmissionRow) -> FinalSubmission:
    return FinalSubmission.model_validate(
        {
            "training_config": row.config,
            "predicted_final_loss": row.predicted_final_loss,
            "submitted_at": datetime.fromtimestamp(row.submitted_at, UTC),
        }
    )
