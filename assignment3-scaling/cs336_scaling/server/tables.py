"""The database's tables. Times are seconds since 1970 (UTC), so that every database stores them alike."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables."""


class User(Base):
    """Who may spend what. The row is locked while a budget is looked at and spent."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    budget_flops: Mapped[int] = mapped_column(BigInteger)
    budget_seconds: Mapped[float] = mapped_column(Float)
    created_at: Mapped[float] = mapped_column(Float)


class Query(Base):
    """A run of the 2025 edition: paid once, answered ever after."""

    __tablename__ = "queries"
    __table_args__ = (UniqueConstraint("user_id", "config_hash"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    config_hash: Mapped[str] = mapped_column(String(64))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    train_flops: Mapped[int] = mapped_column(BigInteger)
    loss: Mapped[float] = mapped_column(Float)
    created_at: Mapped[float] = mapped_column(Float)


class ExperimentRow(Base):
    """An experiment of the 2026 edition.

    While `charged_seconds` is null the experiment reserves `max_runtime_seconds`. A budget is nothing but the sum over
    these two columns, so there is no counter that could disagree with the experiments.

    Attributes:
        config_hash: null once the server itself failed the experiment, so that it can be submitted again.
        runtime_seconds: its training time as last told by its worker.
        lease: the right of one worker to go on with it, until `lease_expires_at` unless renewed.
        attempts: workers that took it since it last showed a validation.
        planned: `simulate` only: what it will show, and when; hidden from clients until then.
        starts_at, ends_at: `simulate` only.
    """

    __tablename__ = "experiments"
    __table_args__ = (UniqueConstraint("user_id", "config_hash"), Index("by_status", "status", "number"))

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    config_hash: Mapped[str | None] = mapped_column(String(64))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    max_runtime_seconds: Mapped[float] = mapped_column(Float)
    status: Mapped[str] = mapped_column(String(16), default="queued")
    submitted_at: Mapped[float] = mapped_column(Float)
    started_at: Mapped[float | None] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float)
    val_losses: Mapped[list[float]] = mapped_column(JSON, default=list)
    val_steps: Mapped[list[int]] = mapped_column(JSON, default=list)
    runtime_seconds: Mapped[float] = mapped_column(Float, default=0.0)
    charged_seconds: Mapped[float | None] = mapped_column(Float)
    failure_reason: Mapped[str | None] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text, default="")
    worker: Mapped[str | None] = mapped_column(String(100))
    lease: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[float | None] = mapped_column(Float)
    attempts: Mapped[int] = mapped_column(default=0)
    planned: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    starts_at: Mapped[float | None] = mapped_column(Float)
    ends_at: Mapped[float | None] = mapped_column(Float)


class FinalSubmissionRow(Base):
    """A prediction for the target budget; a user's last one counts."""

    __tablename__ = "final_submissions"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    predicted_final_loss: Mapped[float] = mapped_column(Float)
    submitted_at: Mapped[float] = mapped_column(Float)
