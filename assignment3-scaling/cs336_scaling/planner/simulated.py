"""Laboratories in this process: a simulated world behind the rules of either edition's budget."""

from cs336_basics.command_line import UsageError
from cs336_scaling.planner.laboratory import Budget, Outcome
from cs336_scaling.schemas.canonical import canonical_hash
from cs336_scaling.schemas.edition_2025 import LossQuery
from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.schemas.limits import BUDGET_2025_FLOPS, BUDGET_2026_SECONDS
from cs336_scaling.simulate.world import World


class SimulatedFlops:
    """2025: runs are paid in training FLOPs, in full."""

    def __init__(self, world: World, total: float = BUDGET_2025_FLOPS) -> None:
        self._world, self._total = world, total
        self._answers: dict[str, Outcome] = {}

    def budget(self) -> Budget:
        """FLOPs."""
        return Budget(self._total, sum(outcome.cost for outcome in self._answers.values()))

    def submit(self, config: LossQuery) -> Outcome:
        """Raises: UsageError past the budget or out of the API's ranges (`OutOfRangeError` is the latter's)."""
        config.check_ranges()
        name = canonical_hash(config)
        if name not in self._answers:
            if config.train_flops > self.budget().remaining:
                raise UsageError(
                    f"train_flops is {config.train_flops:g}; the budget has {self.budget().remaining:g} left"
                )
            self._answers[name] = Outcome(self._world.query(config), float(config.train_flops))
        return self._answers[name]


class SimulatedWallClock:
    """2026: runs are paid by their real seconds; one that is stopped at its limit is paid in full and has no loss."""

    def __init__(self, world: World, total: float = BUDGET_2026_SECONDS) -> None:
        self._world, self._total = world, total
        self._answers: dict[str, Outcome] = {}

    def budget(self) -> Budget:
        """Seconds."""
        return Budget(self._total, sum(outcome.cost for outcome in self._answers.values()))

    def submit(self, config: TrainingConfig) -> Outcome:
        """Raises: UsageError if what is left does not cover `max_runtime_seconds`."""
        name = canonical_hash(config)
        if name not in self._answers:
            limit, left = config.max_runtime_seconds, self.budget().remaining
            if limit > left:
                raise UsageError(f"max_runtime_seconds is {limit:g}; the budget has {left:g} left")
            self._answers[name] = self._train(config, limit)
        return self._answers[name]

    def _train(self, config: TrainingConfig, limit: float) -> Outcome:
        run = self._world.simulate(config)
        seconds = min(max(1.0, run.runtime_seconds), limit)
        if run.runtime_seconds > limit:
            return Outcome(None, seconds, seconds, "timed_out")
        if run.diverged:
            return Outcome(None, seconds, seconds, "diverged")
        return Outcome(run.val_losses[-1], seconds, seconds)
