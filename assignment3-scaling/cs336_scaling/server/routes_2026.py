"""The routes of the Spring 2026 edition. Refusals are `{"detail": …}`."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import APIKeyHeader

from cs336_scaling.schemas.edition_2026 import (
    BudgetSummary,
    Experiment,
    FinalSubmission,
    FinalSubmissionRequest,
    SubmitResponse,
    TrainingConfig,
)
from cs336_scaling.server.accounts import Account, find_account
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.server.services import CurrentServices

router = APIRouter(tags=["Spring 2026"], responses={401: {"description": "no key, or a wrong one"}})
_key_header = APIKeyHeader(name="X-API-Key", auto_error=False)


def account_of_header(services: CurrentServices, key: Annotated[str | None, Depends(_key_header)]) -> Account:
    """The user of the header `X-API-Key`."""
    account = find_account(services.database, key)
    if account is None:
        raise Refusal(401, "the header X-API-Key holds no valid key" if key else "the header X-API-Key is missing")
    return account


AccountOfHeader = Annotated[Account, Depends(account_of_header)]


@router.post(
    "/submit",
    responses={
        400: {"description": "the budget does not cover max_runtime_seconds; nothing is reserved"},
        409: {"description": "the same configuration was submitted before; nothing is reserved"},
    },
)
def submit(services: CurrentServices, account: AccountOfHeader, config: TrainingConfig) -> SubmitResponse:
    """Queue an experiment and reserve its `max_runtime_seconds`."""
    return services.experiments.submit(account, config)


@router.get("/budget")
def budget(services: CurrentServices, account: AccountOfHeader) -> BudgetSummary:
    """Seconds used (charged or reserved), left, and in all."""
    return services.experiments.budget(account)


@router.get("/experiments")
def experiments(services: CurrentServices, account: AccountOfHeader) -> list[Experiment]:
    """All experiments of the key, the oldest first."""
    return services.experiments.all(account)


@router.get("/experiment/{experiment_id}", responses={404: {"description": "this key has no such experiment"}})
def experiment(services: CurrentServices, account: AccountOfHeader, experiment_id: str) -> Experiment:
    """One experiment: where it stands, and its validation losses so far."""
    return services.experiments.get(account, experiment_id)


@router.post("/final_submission")
def post_final_submission(
    services: CurrentServices, account: AccountOfHeader, submission: FinalSubmissionRequest
) -> FinalSubmission:
    """Hand in the configuration for the target budget and its predicted loss. It replaces any earlier one."""
    return services.final_submissions.put(account, submission)


@router.get("/final_submission", responses={404: {"description": "there is none yet"}})
def get_final_submission(services: CurrentServices, account: AccountOfHeader) -> FinalSubmission:
    """The submission that counts."""
    return services.final_submissions.get(account)
