"""Client of the Spring 2025 edition: one blocking query per run, paid in training FLOPs, repeated ones free."""

from collections.abc import Iterable

from cs336_scaling.client.answers import parse
from cs336_scaling.client.api_client import ApiClient
from cs336_scaling.client.plan_cost import PlanCost
from cs336_scaling.client.transport import ApiError
from cs336_scaling.schemas.edition_2025 import LossQuery, LossResponse, PreviousRun
from cs336_scaling.schemas.limits import BUDGET_2025_FLOPS


class ScalingClient2025(ApiClient):
    """The training API paid in FLOPs; the key is the query parameter `api_key`."""

    @staticmethod
    def _credentials(api_key: str) -> dict[str, dict[str, str]]:
        return {"params": {"api_key": api_key}}

    def loss(self, query: LossQuery) -> LossResponse:
        """The final loss of a run, from the cache if it was asked for before, and all FLOPs used when it was.

        An answer that got lost may be asked for again: the server charges a configuration once.

        Raises:
            OutOfRangeError: a value is not allowed; nothing is sent.
        """
        question = ["loss", query.check_ranges().model_dump()]
        kept = self._cache.get(question)
        if kept is not None:
            return parse(LossResponse, kept)
        answer = parse(LossResponse, _checked(self._connection.get("/loss", query.model_dump())))
        self._cache.put(question, answer.model_dump())
        return answer

    def total_flops_used(self) -> float:
        """Training FLOPs charged so far; 0 for a key without queries, for which the server has no number (422)."""
        try:
            return parse(float, _checked(self._connection.get("/total_flops_used")))
        except ApiError as refusal:
            if refusal.status == 422 and "Invalid API key" not in str(refusal):
                return 0.0
            raise

    def previous_runs(self) -> list[PreviousRun]:
        """All runs that were paid for, the oldest first."""
        runs = parse(dict[str, list[dict]], _checked(self._connection.get("/previous_runs")))["previous_runs"]
        fields = PreviousRun.model_fields.keys()
        return parse(list[PreviousRun], [{name: run[name] for name in fields & run.keys()} for run in runs])

    def plan_cost(self, queries: Iterable[LossQuery], budget_flops: float = BUDGET_2025_FLOPS) -> PlanCost[LossQuery]:
        """What asking these would cost; nothing is asked.

        Args:
            queries: the plan.
            budget_flops: the key's whole budget, which this edition's API does not tell.
        """
        known = [LossQuery(**run.model_dump(exclude={"loss"})) for run in self.previous_runs()]
        return plan_cost(queries, known, max(0.0, budget_flops - self.total_flops_used()))


def plan_cost(
    queries: Iterable[LossQuery], known: Iterable[LossQuery] = (), remaining: float | None = None
) -> PlanCost[LossQuery]:
    """What asking these would cost, without a server: `known` ones and repeated ones are free."""
    seen, new, free = set(known), [], []
    for query in queries:
        if query in seen:
            free.append(query)
        else:
            new.append((query, float(query.train_flops)))
        seen.add(query)
    return PlanCost("FLOPs", tuple(new), tuple(free), remaining)


def _checked(answer: object) -> object:
    """The answer, unless it is nothing but a message: that is a refusal, whatever its status."""
    if isinstance(answer, dict) and answer.keys() == {"message"}:
        raise ApiError(f"the server refused: {answer['message']}", 200, answer)
    return answer
