"""Client of the Spring 2026 edition: experiments that queue and run, paid in wall-clock seconds."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cs336_basics.command_line import UsageError
from cs336_scaling.client.answers import Budget, Experiment, FinalSubmission, Submission, parse, parse_experiments
from cs336_scaling.client.api_client import ApiClient
from cs336_scaling.client.plan_cost import PlanCost
from cs336_scaling.client.transport import ApiError
from cs336_scaling.schemas.canonical import canonical_hash
from cs336_scaling.schemas.edition_2026 import TrainingConfig

Watcher = Callable[[Sequence[Experiment]], None]


class ScalingClient2026(ApiClient):
    """The training API paid in seconds; the key is the header X-API-Key."""

    @staticmethod
    def _credentials(api_key: str) -> dict[str, dict[str, str]]:
        return {"headers": {"X-API-Key": api_key}}

    def budget(self) -> Budget:
        """Seconds used, reserved and left."""
        return parse(Budget, self._connection.get("/budget"))

    def experiments(self) -> list[Experiment]:
        """All experiments of the key, the oldest first."""
        experiments = parse_experiments(self._connection.get("/experiments"))
        for experiment in experiments:
            self._keep(experiment)
        return experiments

    def experiment(self, experiment_id: str) -> Experiment:
        """One experiment; from the cache if it was finished when last seen."""
        kept = self._cache.get(["experiment", experiment_id])
        if kept is not None:
            return parse(Experiment, kept)
        experiment = parse(Experiment, self._connection.get(f"/experiment/{experiment_id}"))
        self._keep(experiment)
        return experiment

    def submit(self, config: TrainingConfig) -> Submission:
        """Queue an experiment, or find the one that has this configuration already: calling twice costs once.

        An answer that got lost on its way does not lead to a second experiment: before sending again, the key's
        experiments are searched for this configuration, and the server's "there already" (409) is taken for success.

        Raises:
            ApiError: 400 if the budget does not cover `max_runtime_seconds`, 422 if the server finds a value wrong.
        """
        kept = self._cache.get(["configuration", canonical_hash(config)])
        if kept is not None:
            return Submission(experiment_id=kept, budget_summary=self.budget(), known=True)
        # Which optimizer it is shows in its other keys; the API lists no key `type`.
        body = config.model_dump(mode="json", exclude={"optimizer_config": {"type"}})
        try:
            return parse(Submission, self._connection.post("/submit", body, reconcile=lambda: self._find(config)))
        except ApiError as refusal:
            found = self._find(config) if refusal.status == 409 else None
            if found is None:
                raise
            return found

    def wait(
        self, experiment_ids: Iterable[str], poll_seconds: float = 2.0, on_update: Watcher | None = None
    ) -> list[Experiment]:
        """Poll until all these experiments are finished.

        Args:
            experiment_ids: which.
            poll_seconds: seconds between two looks.
            on_update: called after each look with the experiments in the order asked for.

        Raises:
            UsageError: the server does not list one of them.
        """
        wanted = list(experiment_ids)
        while True:
            by_id = {one.experiment_id: one for one in self.experiments()}
            missing = [name for name in wanted if name not in by_id]
            if missing:
                raise UsageError(f"the server knows no experiment {missing[0]!r} of this key")
            found = [by_id[name] for name in wanted]
            if on_update is not None:
                on_update(found)
            if all(one.finished for one in found):
                return found
            time.sleep(poll_seconds)

    def run_all(
        self, configs: Sequence[TrainingConfig], poll_seconds: float = 2.0, on_update: Watcher | None = None
    ) -> list[Experiment]:
        """Run all configurations, as many at a time as reservations leave room for, and wait for them.

        Calling it again after an interruption goes on: what is there already is not paid again.

        Raises:
            ApiError: the server refuses one, and nothing is running whose end could free budget.
        """
        ids: list[str] = []
        for config in configs:
            while True:
                try:
                    ids.append(self.submit(config).experiment_id)
                    break
                except ApiError as refusal:
                    # Reserved seconds that a running experiment will not need come back when it ends.
                    running = [one.experiment_id for one in self.experiments() if not one.finished]
                    if refusal.status != 400 or not running:
                        raise
                self._wait_for_any(running, poll_seconds, lambda: self._report(ids, on_update))
        return self.wait(ids, poll_seconds, on_update)

    def plan_cost(self, configs: Iterable[TrainingConfig]) -> PlanCost[TrainingConfig]:
        """What running these would reserve at most; nothing is submitted."""
        known = {canonical_hash(one.training_config) for one in self.experiments() if one.training_config is not None}
        return plan_cost(configs, known, self.budget().remaining_seconds)

    def submit_final(self, config: TrainingConfig, predicted_final_loss: float) -> FinalSubmission:
        """Hand in the configuration for the target budget and the loss predicted for it; the last one counts."""
        body: dict[str, Any] = {
            "training_config": config.model_dump(mode="json", exclude={"optimizer_config": {"type"}}),
            "predicted_final_loss": predicted_final_loss,
        }
        return parse(FinalSubmission, self._connection.post("/final_submission", body))

    def final_submission(self) -> FinalSubmission | None:
        """The final submission that counts, or None before the first."""
        try:
            answer = self._connection.get("/final_submission")
        except ApiError as refusal:
            if refusal.status == 404:
                return None
            raise
        return None if answer is None else parse(FinalSubmission, answer)

    def _find(self, config: TrainingConfig) -> Submission | None:
        """The newest experiment of this configuration."""
        wanted = canonical_hash(config)
        for one in reversed(self.experiments()):
            if one.training_config is not None and canonical_hash(one.training_config) == wanted:
                return Submission(experiment_id=one.experiment_id, budget_summary=self.budget(), known=True)
        return None

    def _keep(self, experiment: Experiment) -> None:
        if not experiment.finished or self._cache.get(["experiment", experiment.experiment_id]) is not None:
            return
        self._cache.put(["experiment", experiment.experiment_id], experiment.model_dump(mode="json"))
        if experiment.status_type == "completed" and experiment.training_config is not None:
            question = ["configuration", canonical_hash(experiment.training_config)]
            self._cache.put(question, experiment.experiment_id)

    def _report(self, experiment_ids: Sequence[str], on_update: Watcher | None) -> None:
        if on_update is not None:
            by_id = {one.experiment_id: one for one in self.experiments()}
            on_update([by_id[name] for name in experiment_ids])

    def _wait_for_any(self, experiment_ids: Sequence[str], poll_seconds: float, report: Callable[[], None]) -> None:
        while not any(one.finished for one in self.experiments() if one.experiment_id in experiment_ids):
            report()
            time.sleep(poll_seconds)


def plan_cost(
    configs: Iterable[TrainingConfig], known: Iterable[str] = (), remaining: float | None = None
) -> PlanCost[TrainingConfig]:
    """What running these would reserve at most, without a server.

    Args:
        configs: the plan.
        known: `canonical_hash` of configurations that are there already.
        remaining: seconds left of the budget.
    """
    seen, new, free = set(known), [], []
    for config in configs:
        name = canonical_hash(config)
        if name in seen:
            free.append(config)
        else:
            new.append((config, config.max_runtime_seconds))
        seen.add(name)
    return PlanCost("s", tuple(new), tuple(free), remaining)
