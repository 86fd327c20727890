"""Runs of the 2025 edition: each configuration is paid once."""

from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cs336_scaling.schemas.canonical import canonical_hash
from cs336_scaling.schemas.edition_2025 import LossQuery, LossResponse, PreviousRun
from cs336_scaling.server.accounts import Account, lock_user
from cs336_scaling.server.database import Database
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.server.tables import Query


class QueryBook:
    """The queries of all users.

    Args:
        database: where they are kept.
        train: gives the loss of a query; it is asked at most once for each, within the transaction that pays.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, train: Callable[[LossQuery], float], clock: Callable[[], float]) -> None:
        self._database, self._train, self._clock = database, train, clock

    def ask(self, account: Account, query: LossQuery) -> LossResponse:
        """The loss, paid for unless this user has asked before.

        Raises:
            Refusal: 400, the budget does not cover it.
        """
        hashed = canonical_hash(query)
        with self._database.writing() as session:
            user = lock_user(session, account.id)
            known = session.scalar(select(Query).where(Query.user_id == user.id, Query.config_hash == hashed))
            used = _flops_used(session, user.id)
            if known is not None:
                return LossResponse(loss=known.loss, total_flops_used=used)
            if used + query.train_flops > user.budget_flops:
                raise Refusal(
                    400,
                    f"the query needs {query.train_flops:g} FLOPs, but {used:g} of the budget of "
                    f"{user.budget_flops:g} are used",
                )
            loss = self._train(query)
            session.add(
                Query(
                    user_id=user.id,
                    config_hash=hashed,
                    config=query.model_dump(mode="json"),
                    train_flops=query.train_flops,
                    loss=loss,
                    created_at=self._clock(),
                )
            )
            return LossResponse(loss=loss, total_flops_used=used + query.train_flops)

    def total_flops_used(self, account: Account) -> float:
        """All FLOPs the user has paid.

        Raises:
            Refusal: 422, there is no query yet.
        """
        with self._database.reading() as session:
            if session.scalar(select(Query.id).where(Query.user_id == account.id).limit(1)) is None:
                raise Refusal(422, "this API key has made no queries yet")
            return float(_flops_used(session, account.id))

    def previous_runs(self, account: Account) -> list[PreviousRun]:
        """The user's runs, the oldest first."""
        with self._database.reading() as session:
            rows = session.scalars(select(Query).where(Query.user_id == account.id).order_by(Query.id))
            return [PreviousRun(**row.config, loss=row.loss) for row in rows]


def _flops_used(session: Session, user_id: int) -> int:
    return int(session.scalar(select(func.coalesce(func.sum(Query.train_flops), 0)).where(Query.user_id == user_id)))
