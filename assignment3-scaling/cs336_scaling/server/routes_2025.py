"""The routes of the Spring 2025 edition. Refusals are `{"message": …}`."""

from typing import Annotated

from fastapi import APIRouter, Depends

from cs336_scaling.schemas.edition_2025 import (
    LossQuery,
    LossResponse,
    Message,
    OutOfRangeError,
    PreviousRuns,
    WholeNumber,
)
from cs336_scaling.server.accounts import Account, find_account
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.server.services import CurrentServices

PATHS = ("/loss", "/total_flops_used", "/previous_runs")

router = APIRouter(tags=["Spring 2025"], responses={401: {"model": Message, "description": "wrong key"}})


def account_of_query(services: CurrentServices, api_key: str) -> Account:
    """The user of the parameter `api_key`."""
    account = find_account(services.database, api_key)
    if account is None:
        raise Refusal(401, f"Invalid API key provided: {api_key}")
    return account


AccountOfQuery = Annotated[Account, Depends(account_of_query)]


@router.get(
    "/loss",
    responses={
        400: {"model": Message, "description": "the budget does not cover it"},
        404: {"model": Message, "description": "a value is out of range"},
        501: {"model": Message, "description": "the server really trains, which takes longer than an answer can wait"},
    },
)
def loss(
    services: CurrentServices,
    account: AccountOfQuery,
    d_model: WholeNumber,
    num_layers: WholeNumber,
    num_heads: WholeNumber,
    batch_size: WholeNumber,
    learning_rate: float,
    train_flops: WholeNumber,
) -> LossResponse:
    """Train one model and answer with its final loss. A repeated configuration costs nothing."""
    query = LossQuery(
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        batch_size=batch_size,
        learning_rate=learning_rate,
        train_flops=train_flops,
    )
    try:
        query.check_ranges()
    except OutOfRangeError as error:
        raise Refusal(404, str(error)) from None
    return services.queries.ask(account, query)


@router.get("/total_flops_used", responses={422: {"model": Message, "description": "no queries yet"}})
def total_flops_used(services: CurrentServices, account: AccountOfQuery) -> float:
    """All FLOPs the key has paid for."""
    return services.queries.total_flops_used(account)


@router.get("/previous_runs")
def previous_runs(services: CurrentServices, account: AccountOfQuery) -> PreviousRuns:
    """All runs of the key with their losses, the oldest first."""
    return PreviousRuns(previous_runs=services.queries.previous_runs(account))
