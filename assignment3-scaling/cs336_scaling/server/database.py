"""Opening the database, and its two kinds of transaction.

SQLite lets one connection write at a time and everybody read meanwhile (WAL). A transaction that reads and then writes
must be the only writer from its first statement on, else two of them could both read the same budget: `writing()`
begins with BEGIN IMMEDIATE. On other databases (PostgreSQL: `postgresql+psycopg://…`, with the driver installed) the
statement `SELECT … FOR UPDATE` on the user's row does the same for one user.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError
from sqlalchemy.orm import Session

from cs336_basics.command_line import UsageError
from cs336_scaling.server.tables import Base

_BUSY_SECONDS = 60.0


class Database:
    """The open database; its tables are made if they are missing.

    Raises:
        UsageError: the URL is none, its driver is missing, the database cannot be reached, or it would be an SQLite
            database in memory, which the workers and threads of a server cannot share.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            sqlite = parsed.get_backend_name() == "sqlite"
            if sqlite:
                if parsed.database in (None, "", ":memory:"):
                    raise UsageError(f"the database {url} is in memory; a server needs a file, sqlite:///NAME.sqlite")
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            arguments = {"timeout": _BUSY_SECONDS} if sqlite else {}
            self._engine = create_engine(parsed, connect_args=arguments, pool_size=20, max_overflow=40)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UsageError(
                f"the database {url!r} cannot be opened: {error}; allowed is any SQLAlchemy URL whose driver is "
                "installed, such as sqlite:///NAME.sqlite"
            ) from None
        if sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(writing=True)
        try:
            Base.metadata.create_all(self._writer)
        except DatabaseError as error:
            shown = parsed.render_as_string(hide_password=True)
            raise UsageError(f"the database {shown} cannot be used: {error.orig}") from None

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only looks; it sees one moment of the database."""
        with Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that may look and then write: all of it happens, or on an exception nothing."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions late, and always as readers
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # what was answered stays, even if the machine loses power
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writing") else "BEGIN")
