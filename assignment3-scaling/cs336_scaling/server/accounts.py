"""Users and their keys."""

import hmac
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import select
from sqlalchemy.orm import Session

from cs336_basics.command_line import UsageError
from cs336_scaling.server.database import Database
from cs336_scaling.server.settings import ServerSettings
from cs336_scaling.server.tables import User


@dataclass(frozen=True)
class Account:
    """A user, without the key."""

    id: int
    name: str
    budget_flops: int
    budget_seconds: float


def _hash(key: str) -> str:
    # A key is 256 random bits: nobody can try them all, so one fast hash hides it as well as a slow, salted one would,
    # which is made for passwords that people choose.
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def add_user(database: Database, settings: ServerSettings, name: str) -> str:
    """Make a user with the settings' budgets.

    Returns:
        The key. It is not stored, so it cannot be shown again.

    Raises:
        UsageError: the name is empty, too long or taken.
    """
    if not name.strip() or len(name) > 100:
        raise UsageError(f"the user's name is {name!r}; allowed are 1 to 100 characters")
    key = f"cs336-{secrets.token_urlsafe(32)}"
    with database.writing() as session:
        if session.scalar(select(User).where(User.name == name)) is not None:
            raise UsageError(f"there is a user {name!r} already; choose another name")
        session.add(
            User(
                name=name,
                key_hash=_hash(key),
                budget_flops=int(settings.budget_flops),
                budget_seconds=settings.budget_seconds,
                created_at=time.time(),
            )
        )
    return key


def list_users(database: Database) -> list[Account]:
    """All users, the oldest first."""
    with database.reading() as session:
        return [_account(user) for user in session.scalars(select(User).order_by(User.id))]


def find_account(database: Database, key: str | None) -> Account | None:
    """The user a key belongs to, if there is one."""
    if not key:
        return None
    hashed = _hash(key)
    with database.reading() as session:
        user = session.scalar(select(User).where(User.key_hash == hashed))
        # The index finds the row by its hash, whose digits say nothing of the key; comparing leaks no timing either.
        if user is None or not hmac.compare_digest(user.key_hash, hashed):
            return None
        return _account(user)


def lock_user(session: Session, user_id: int) -> User:
    """The user's row, which no other transaction can lock until this one ends: budgets are spent one at a time."""
    return session.scalars(select(User).where(User.id == user_id).with_for_update()).one()


def _account(user: User) -> Account:
    return Account(user.id, user.name, user.budget_flops, user.budget_seconds)
