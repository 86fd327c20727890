"""A training API of the study's own: server and workers on this machine, on a free port, with a key kept in a file."""

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_scaling.server.accounts import add_user, find_account
from cs336_scaling.server.app import create_app
from cs336_scaling.server.database import Database
from cs336_scaling.server.settings import ServerSettings
from cs336_scaling.server.training_text import prepare_text
from cs336_scaling.server.worker_pool import WorkerPool, worker_flags


@dataclass(frozen=True)
class LocalServer:
    """Where it listens, and the study's key."""

    url: str
    key: str


@contextmanager
def local_server(settings: ServerSettings, workers: int) -> Iterator[LocalServer]:
    """Serve `settings` while the context is open; what was there before in its data folder goes on.

    Args:
        settings: of the server; its backend should train.
        workers: worker processes, which share the CPU's cores.

    Raises:
        UsageError: the database cannot be opened.
    """
    prepare_text(settings)
    app = create_app(settings)
    services = app.state.services
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise UsageError("the study's server did not start")
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        flags = worker_flags(settings, workers)
        with (
            open(settings.data_dir / "workers.log", "a", encoding="utf-8") as log,
            WorkerPool(workers, flags, services.leases, log),
        ):
            yield LocalServer(f"http://127.0.0.1:{port}", _key(settings, services.database))
    finally:
        server.should_exit = True
        thread.join()


def _key(settings: ServerSettings, database: Database) -> str:
    """The key in `api_key` in the data folder; a new user's, if there is none that the database knows."""
    path = settings.data_dir / "api_key"
    if path.is_file():
        key = path.read_text(encoding="utf-8").strip()
        if find_account(database, key) is not None:
            return key
    key = add_user(database, settings, f"study-{uuid.uuid4().hex[:8]}")
    with atomic_write(path, "w") as file:
        os.chmod(file.name, 0o600)
        file.write(key)
    return key
