"""Laboratories behind the training API, ours or the university's, through the clients of either edition."""

from cs336_scaling.client.flops import ScalingClient2025
from cs336_scaling.client.wall_clock import ScalingClient2026
from cs336_scaling.planner.laboratory import Budget, Outcome
from cs336_scaling.schemas.edition_2025 import LossQuery
from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.schemas.limits import BUDGET_2025_FLOPS


class ApiFlops:
    """2025. This edition's API does not tell the whole budget, so it is given here, in FLOPs."""

    def __init__(self, client: ScalingClient2025, total: float = BUDGET_2025_FLOPS) -> None:
        self._client, self._total = client, total

    def budget(self) -> Budget:
        """FLOPs."""
        return Budget(self._total, self._client.total_flops_used())

    def submit(self, config: LossQuery) -> Outcome:
        """The loss of a run; the server charges a configuration once."""
        return Outcome(self._client.loss(config).loss, float(config.train_flops))


class ApiWallClock:
    """2026. Looks for the end of an experiment every `poll_seconds`."""

    def __init__(self, client: ScalingClient2026, poll_seconds: float = 2.0) -> None:
        self._client, self._poll_seconds = client, poll_seconds

    def budget(self) -> Budget:
        """Seconds; reserved ones count as used."""
        budget = self._client.budget()
        return Budget(budget.total_budget_seconds, budget.used_seconds)

    def submit(self, config: TrainingConfig) -> Outcome:
        """Run an experiment, or find the one that has this configuration already, and wait for its end."""
        experiment_id = self._client.submit(config).experiment_id
        (experiment,) = self._client.wait([experiment_id], self._poll_seconds)
        charged = experiment.charged_seconds
        seconds = experiment.runtime_seconds if experiment.runtime_seconds is not None else charged
        cost = charged if charged is not None else (seconds or 0.0)
        if experiment.loss is None:
            return Outcome(None, cost, seconds, experiment.failure_reason or "failed")
        return Outcome(experiment.loss, cost, seconds)
