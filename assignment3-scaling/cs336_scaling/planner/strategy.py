"""The planner: what to train next, why, when to stop, and what to train for the target.

1. Sweep: learning rates and batch sizes at the smallest scale.
2. Transfer: the best ones again for smaller and larger models, which tells how they move with scale.
3. Profiles: isoFLOP profiles at three budgets, each run with the learning rate and batch size transferred to it.
4. Refinement: of all runs that the rest of the budget can pay, always the one that takes away most of the uncertainty
   about the target per cost (c-optimal design on the surrogate's Laplace posterior); it climbs to the largest runs.
5. Stop: when the prediction is as exact as asked, or no run that is left is worth anything or can be paid.

Decisions depend on nothing but the answers, so going through recorded answers again ends in the same state.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import BaseModel
from scipy.stats import norm

from cs336_basics.command_line import UsageError
from cs336_scaling.planner.laboratory import Laboratory, Outcome
from cs336_scaling.planner.space import Choice, Space
from cs336_scaling.planner.surrogate import Settings, Surrogate, fit_surrogate

PROFILE_SHARES = (0.0015, 0.005, 0.015)
PROFILE_FACTORS = (1 / 4, 1 / 2, 1, 2, 4)
REFINEMENT_SHARES = (0.005, 0.015, 0.05, 0.1, 0.15, 0.3, 0.5)
REFINEMENT_LR_FACTORS = (0.4, 1.0, 2.0)


@dataclass(frozen=True)
class Step:
    """One run, and why it was made.

    Attributes:
        stage, reason: in words.
        config: what was submitted.
        settings: what it comes to.
        predicted: the loss foretold before the run.
        outcome: the answer.
        problem: why it was not used for fitting, if it was not.
    """

    stage: str
    reason: str
    config: BaseModel
    settings: Settings
    predicted: float
    outcome: Outcome
    problem: str


@dataclass(frozen=True)
class Plan:
    """What the planner says in the end.

    Attributes:
        config: the configuration for the target.
        settings: what it comes to.
        predicted_loss, low, high: its loss and the 90 % interval.
        expected_regret: share by which the loss is expected to exceed the best choice's, by what is not known.
        steps: all runs.
        surrogate: the last fit.
        used, total: of the budget.
        stop_reason: why no further run was made.
    """

    config: BaseModel
    settings: Settings
    predicted_loss: float
    low: float
    high: float
    expected_regret: float
    steps: tuple[Step, ...]
    surrogate: Surrogate
    used: float
    total: float
    stop_reason: str


@dataclass
class Planner:
    """Plans one target.

    Attributes:
        space: what can be trained.
        laboratory: who trains it.
        precision: stop when the 90 % interval's half width, relative to the loss, is at most this.
        confidence: of the interval.
        seed: of the samples that the expected regret is averaged over.
        on_step: called after each run.
    """

    space: Space
    laboratory: Laboratory[Any]
    precision: float = 0.002
    confidence: float = 0.9
    seed: int = 0
    on_step: Callable[[Step], None] = lambda step: None
    steps: list[Step] = field(default_factory=list)
    _surrogate: Surrogate | None = None

    def run(self) -> Plan:
        """Spend the budget and return the plan.

        Raises:
            UsageError: the budget does not pay for the sweep, or too few runs came to an end.
        """
        total = self.laboratory.budget().total
        if self.space.level(self.space.sweep_share * total) == 0:
            raise UsageError(f"the budget is {total:g} {self.space.unit}; that pays for no run of the sweep")
        self._probe(total)
        self._sweep(total)
        self._transfer(total)
        self._profiles(total)
        stop_reason = self._refine(total)
        if len(self._usable()) < 8:
            raise UsageError(
                f"only {len(self._usable())} of {len(self.steps)} runs came to an end; at least 8 are needed"
            )
        config, settings = self._best_for_target()
        log_loss, half_width = np.log(self._surrogate.loss(settings)[0]), self._half_width(settings)
        return Plan(
            config,
            settings,
            *(float(np.exp(log_loss + shift)) for shift in (0.0, -half_width, half_width)),
            self._expected_regret(settings),
            tuple(self.steps),
            self._surrogate,
            self.laboratory.budget().used,
            total,
            stop_reason,
        )

    def _usable(self) -> list[Step]:
        return [step for step in self.steps if not step.problem]

    def _fit(self) -> Surrogate:
        if self._surrogate is None:
            usable = self._usable()
            if usable:
                runs = Settings.stack([step.settings for step in usable])
                losses = np.array([step.outcome.loss for step in usable])
                self._surrogate = fit_surrogate(runs, losses)
            else:
                nothing = np.array([])
                self._surrogate = fit_surrogate(Settings(*[nothing] * 5), nothing)
        return self._surrogate

    def _submit(self, stage: str, reason: str, choice: Choice, lr: float, cost: float) -> None:
        """Train a choice for a cost, unless it is too dear or was trained already."""
        config = self.space.config(choice, lr, cost)
        if any(step.config == config for step in self.steps):
            return
        if self.space.reserve(config) > self.laboratory.budget().remaining:
            return
        settings = self.space.settings(config)
        predicted = float(self._fit().loss(settings)[0])
        outcome = self.laboratory.submit(config)
        problem = self.space.learn(config, outcome) or ("too short to fit" if stage == "probe" else "")
        step = Step(stage, reason, config, settings, predicted, outcome, problem)
        self.steps.append(step)
        self._surrogate = None
        self.on_step(step)

    def _at_best_lr(self, cost: float, for_target: bool = False) -> tuple[list[Choice], Settings]:
        """All choices for a cost at their best learning rates, as far as the space allows."""
        choices, settings = self.space.choices(cost, for_target)
        return choices, settings.with_lr(np.clip(self._fit().best_lr(settings), *self.space.lr_range))

    def _best(self, cost: float) -> tuple[Choice, float, float]:
        """(The choice with the lowest predicted loss for a cost, its learning rate, its block parameters)."""
        choices, settings = self._at_best_lr(cost)
        best = int(np.argmin(self._fit().loss(settings)))
        return choices[best], float(settings.lr[best]), float(settings.blocks[best])

    def _sized(self, cost: float, blocks: float) -> tuple[Choice, float]:
        """(The choice nearest in size to `blocks` parameters, at its best batch size; its learning rate)."""
        choices, settings = self._at_best_lr(cost)
        distance = np.abs(np.log(settings.blocks / blocks))
        nearest = np.flatnonzero(distance <= distance.min() + 1e-9)
        best = nearest[np.argmin(self._fit().loss(settings)[nearest])]
        return choices[best], float(settings.lr[best])

    def _probe(self, total: float) -> None:
        if self.space.unit != "s":
            return
        reason = "how fast is this machine? A short run of a small model bounds the time of all others"
        for share in (0.0002, 0.001):
            cost = self.space.level(max(share * total, 1.0))
            choices, _ = self.space.choices(cost)
            narrow = min(choices, key=lambda choice: (choice.width, choice.batch))
            self._submit("probe", reason, narrow, min(self.space.sweep_lrs), cost)

    def _sweep(self, total: float) -> None:
        cost = self.space.level(self.space.sweep_share * total)
        width = self._best(cost)[0].width
        reason = "which learning rate and batch size does a small model want?"
        for batch in self.space.sweep_batches:
            for lr in self.space.sweep_lrs:
                self._submit("sweep", reason, Choice(width, batch), lr, cost)

    def _transfer(self, total: float) -> None:
        small, large = (self.space.level(share * total) for share in PROFILE_SHARES[:2])
        for cost, factor in ((small, 3.0), (large, 1 / 3), (large, 3.0)):
            _, _, blocks = self._best(cost)
            choice, lr = self._sized(cost, factor * blocks)
            for lr_factor in (0.4, 1.6):
                reason = f"how does the best learning rate move? {factor:.2g} × the best size, {lr_factor:g} × its lr"
                self._submit("transfer", reason, choice, lr_factor * lr, cost)

    def _profiles(self, total: float) -> None:
        for share in PROFILE_SHARES:
            cost = self.space.level(share * total)
            _, _, blocks = self._best(cost)
            for factor in PROFILE_FACTORS:
                choice, lr = self._sized(cost, factor * blocks)
                reason = f"isoFLOP profile at {cost:.3g} {self.space.unit}: {factor:g} × the size thought best"
                self._submit("profile", reason, choice, lr, cost)

    def _refine(self, total: float) -> str:
        """Run what teaches most about the target per cost; returns why it stopped."""
        for _ in range(200):
            _, settings = self._best_for_target()
            half_width, regret = self._half_width(settings), self._expected_regret(settings)
            if len(self._usable()) >= 8 and half_width <= self.precision and regret <= self.precision / 4:
                return (
                    f"the interval's half width, {100 * half_width:.2f} %, and the expected regret, "
                    f"{100 * regret:.3f} %, are as small as asked ({100 * self.precision:g} % and a quarter of it)"
                )
            made = len(self.steps)
            candidate = self._most_informative(total)
            if candidate is None:
                return "no further run can be paid"
            choice, lr, cost, gain = candidate
            reason = (
                f"takes away {100 * gain:.0f} % of the variance of the target's predicted loss; half width now "
                f"{100 * half_width:.2f} %, expected regret {100 * regret:.3f} %"
            )
            self._submit("refinement", reason, choice, lr, cost)
            if len(self.steps) == made:
                return "no further run can be paid"
        return "200 refinements were made"

    def _most_informative(self, total: float) -> tuple[Choice, float, float, float] | None:
        """(Choice, learning rate, cost, share of the variance it takes away) of the best run that can be paid."""
        surrogate, remaining = self._fit(), self.laboratory.budget().remaining
        wanted = surrogate.gradient(self._around_target())
        variance = np.einsum("ki,ij,kj->", wanted, surrogate.covariance, wanted)
        best, best_score = None, 0.0
        for cost in sorted({self.space.level(share * total) for share in REFINEMENT_SHARES} - {0.0}):
            if cost > remaining:
                continue
            choices, settings = self._at_best_lr(cost)
            loss = surrogate.loss(settings)
            # Far from its optimum a run says little about good ones, whatever the model believes.
            near = np.flatnonzero(loss <= 1.04 * loss.min())
            for lr_factor in REFINEMENT_LR_FACTORS:
                lr = np.clip(lr_factor * settings.lr, *self.space.lr_range)
                rows = surrogate.gradient(settings.with_lr(lr))[near]
                seen = rows @ surrogate.covariance
                own = surrogate.run_sd(loss[near]) ** 2 + (seen * rows).sum(axis=1)
                gains = ((seen @ wanted.T) ** 2).sum(axis=1) / own
                for index in np.argsort(-gains):
                    choice, chosen_lr, score = choices[near[index]], float(lr[near[index]]), gains[index] / cost
                    if score <= best_score:
                        break
                    if self._resembles_an_earlier_run(settings.at(near[index]).with_lr(lr[near[index]][None])):
                        continue
                    if self.space.reserve(self.space.config(choice, chosen_lr, cost)) <= remaining:
                        best, best_score = (choice, chosen_lr, cost, float(gains[index] / variance)), score
                        break
        return best

    def _resembles_an_earlier_run(self, run: Settings) -> bool:
        """Whether size, batch, tokens and learning rate all lie within 15 % of a run's: that would teach only luck."""
        new = np.log([run.blocks[0], run.batch[0], run.tokens[0], run.lr[0]])
        earlier = Settings.stack([step.settings for step in self.steps])
        old = np.log([earlier.blocks, earlier.batch, earlier.tokens, earlier.lr])
        return bool(np.any(np.all(np.abs(old - new[:, None]) < 0.14, axis=0)))

    def _around_target(self) -> Settings:
        """The best run for the target, and others at half and twice its size, learning rate and batch."""
        _, best = self._best_for_target()
        rows = [best]
        for factor in (0.5, 2.0):
            rows.append(Settings(best.blocks * factor, best.embeddings, best.tokens / factor, best.batch, best.lr))
            rows.append(best.with_lr(best.lr * factor))
            rows.append(Settings(best.blocks, best.embeddings, best.tokens, best.batch * factor, best.lr))
        return Settings.stack(rows)

    def _best_for_target(self) -> tuple[BaseModel, Settings]:
        choices, settings = self._at_best_lr(self.space.target, for_target=True)
        best = int(np.argmin(self._fit().loss(settings)))
        config = self.space.config(choices[best], float(settings.lr[best]), self.space.target, for_target=True)
        return config, self.space.settings(config)

    def _half_width(self, settings: Settings) -> float:
        """Half the interval's width for the log loss."""
        return float(norm.ppf((1 + self.confidence) / 2) * self.space.interval_factor * self._fit().log_sd(settings)[0])

    def _expected_regret(self, settings: Settings) -> float:
        """Mean over the posterior of the chosen run's loss over that of the best choice, minus 1."""
        surrogate = self._fit()
        random = np.random.default_rng(self.seed)
        _, all_settings = self._at_best_lr(self.space.target, for_target=True)
        near = np.flatnonzero(surrogate.loss(all_settings) <= 1.05 * surrogate.loss(settings)[0])
        regrets = []
        for theta in random.multivariate_normal(surrogate.theta, surrogate.covariance, 48, method="cholesky"):
            world = replace(surrogate, theta=theta)
            options = all_settings.with_lr(np.clip(world.best_lr(all_settings), *self.space.lr_range))
            regrets.append(world.loss(settings)[0] / min(world.loss(options)[near].min(), world.loss(settings)[0]) - 1)
        return float(np.mean(regrets))
