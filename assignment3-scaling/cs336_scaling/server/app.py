"""The web application: `create_app(settings)` is all that a server process needs."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse

from cs336_scaling.dashboard.router import router as dashboard_router
from cs336_scaling.server import routes_2025, routes_2026
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.server.services import Services
from cs336_scaling.server.settings import ServerSettings

_DESCRIPTION = """The training API of CS336's assignment 3. Spring 2025: `GET /loss`, paid in FLOPs, key in `api_key`.
Spring 2026: `POST /submit`, paid in seconds, key in the header `X-API-Key`."""


def create_app(settings: ServerSettings, clock: Callable[[], float] = time.time) -> FastAPI:
    """Both editions of the API, its documentation at `/docs`, and the dashboard at `/dashboard`.

    Args:
        settings: the server's.
        clock: seconds since 1970.

    Raises:
        UsageError: the database cannot be opened.
    """
    services = Services.open(settings, clock)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        services.database.close()

    app = FastAPI(title="CS336 training API", description=_DESCRIPTION, version="2026", lifespan=lifespan)
    app.state.services = services
    app.include_router(routes_2025.router)
    app.include_router(routes_2026.router)
    app.include_router(dashboard_router)
    app.add_api_route("/", lambda: RedirectResponse("/dashboard"), include_in_schema=False)
    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    return app


def _answer_refusal(request: Request, refusal: Refusal) -> JSONResponse:
    key = "message" if request.url.path in routes_2025.PATHS else "detail"
    return JSONResponse({key: refusal.sentence}, refusal.status)


def _answer_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
    """422 with place and sentence of each error. The input is left out: it may hold what JSON cannot, such as NaN."""
    problems = [
        {"loc": problem["loc"], "msg": problem["msg"].removeprefix("Value error, "), "type": problem["type"]}
        for problem in error.errors()
    ]
    return JSONResponse({"detail": problems}, 422)
