"""What the routes share: the database and the books kept in it, made once per server."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from cs336_scaling.server.backends import Backend, SimulatedBackend, TrainingBackend
from cs336_scaling.server.database import Database
from cs336_scaling.server.experiments import ExperimentBook
from cs336_scaling.server.final_submissions import FinalSubmissionBook
from cs336_scaling.server.leases import LeaseBook
from cs336_scaling.server.queries import QueryBook
from cs336_scaling.server.settings import ServerSettings
from cs336_scaling.simulate.world import World


@dataclass(frozen=True)
class Services:
    """The open database and its books."""

    settings: ServerSettings
    database: Database
    queries: QueryBook
    experiments: ExperimentBook
    final_submissions: FinalSubmissionBook
    leases: LeaseBook

    @classmethod
    def open(cls, settings: ServerSettings, clock: Callable[[], float] = time.time) -> "Services":
        """Open the database.

        Raises:
            UsageError: it cannot be opened.
        """
        database = Database(settings.database)
        backend: Backend
        if settings.backend == "simulate":
            backend = SimulatedBackend(World.from_seed(settings.world_seed), settings.speed)
        else:
            backend = TrainingBackend(settings.train.tokenizer_vocab_size)
        leases = LeaseBook(database, settings.train.lease_seconds, settings.train.max_attempts, clock)
        return cls(
            settings,
            database,
            QueryBook(database, backend.query, clock),
            ExperimentBook(database, backend, leases, settings.slots, clock),
            FinalSubmissionBook(database, clock),
            leases,
        )


def services_of(request: Request) -> Services:
    """FastAPI dependency: the services of the server that answers."""
    return request.app.state.services


CurrentServices = Annotated[Services, Depends(services_of)]
