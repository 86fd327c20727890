"""The routes of the page: `/dashboard`, its files, and the data of one key.

The page itself holds no data. It asks for them with the key in a header, so that no key stands in an address, a log or
a browser's history. Nothing comes from elsewhere: the plotting library is the copy inside the package plotly.
"""

from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from cs336_scaling.dashboard.view import DashboardData, view_2025, view_2026
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.server.routes_2026 import AccountOfHeader
from cs336_scaling.server.services import CurrentServices

POLL_MS = 3000
EDITIONS = ({"year": "2026", "unit": "seconds"}, {"year": "2025", "unit": "FLOPs"})
STATIC_TYPES = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "plots.js": "text/javascript; charset=utf-8",
    "plotly.min.js": "text/javascript; charset=utf-8",
}
PAGE_HEADERS = {
    # Plotly sets inline styles; its exports are blob: and data: images.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(prefix="/dashboard", include_in_schema=False)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("cs336_scaling.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _static(name: str) -> str:
    if name == "plotly.min.js":
        return get_plotlyjs()
    return files("cs336_scaling.dashboard").joinpath("static", name).read_text(encoding="utf-8")


@router.get("")
def page(request: Request) -> HTMLResponse:
    """The page, the same for everybody."""
    base = request.scope.get("root_path", "").rstrip("/") + router.prefix
    html = _templates().get_template("dashboard.html").render(base=base, poll_ms=POLL_MS, editions=EDITIONS)
    return HTMLResponse(html, headers=PAGE_HEADERS)


@router.get("/static/{name}")
def static(name: str) -> Response:
    """A file of the page."""
    if name not in STATIC_TYPES:
        raise Refusal(404, f"the dashboard has no file {name!r}")
    # Plotly is 5 MB and changes with its version only; our own files may change with any restart.
    caching = "max-age=86400" if name == "plotly.min.js" else "no-cache"
    return Response(_static(name), media_type=STATIC_TYPES[name], headers={"Cache-Control": caching})


@router.get("/data")
def data(
    services: CurrentServices,
    account: AccountOfHeader,
    edition: Annotated[Literal["2025", "2026"] | None, Query()] = None,
) -> DashboardData:
    """What the page shows of one key; without an edition, of the one that has runs, 2026 if both or none have."""
    experiments = services.experiments.all(account)
    runs = services.queries.previous_runs(account)
    if edition == "2025" or (edition is None and runs and not experiments):
        return view_2025(sum(run.train_flops for run in runs), account.budget_flops, runs)
    try:
        final = services.final_submissions.get(account)
    except Refusal:
        final = None
    return view_2026(account.budget_seconds, experiments, final)
