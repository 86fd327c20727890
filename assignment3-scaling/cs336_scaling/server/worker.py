"""A worker: takes experiments from the queue, one at a time, and really trains them."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_basics.trainer.trainer import DivergenceError
from cs336_basics.training_data import TrainingData
from cs336_scaling.server.experiment_run import ExperimentRun
from cs336_scaling.server.lease_keeper import LeaseKeeper
from cs336_scaling.server.leases import Claim, LeaseBook
from cs336_scaling.server.settings import ServerSettings

_POLL_SECONDS = 0.5


class Worker:
    """One worker.

    Args:
        settings: the server's.
        leases: the queue.
        data: the tokens to train on.
        name: tells workers apart.
        should_stop: asked between steps; once it is true the worker saves, gives its experiment back and ends.
        say: is told what happens.
    """

    def __init__(
        self,
        settings: ServerSettings,
        leases: LeaseBook,
        data: TrainingData,
        name: str,
        should_stop: Callable[[], bool],
        say: Callable[[str], None] = print,
    ) -> None:
        self._settings, self._leases, self._data = settings, leases, data
        self._name, self._should_stop, self._say = name, should_stop, say

    def work(self, drain: bool = False) -> None:
        """Train experiments until asked to stop; with `drain`, until none is waiting."""
        for folder in experiment_folder(self._settings, "").glob("*"):
            if not self._leases.is_unfinished(folder.name):  # its worker died just after its end
                shutil.rmtree(folder, ignore_errors=True)
        while not self._should_stop():
            claim = self._leases.claim(self._name)
            if claim is not None:
                self._train(claim)
            elif drain:
                return
            else:
                time.sleep(_POLL_SECONDS)

    def _train(self, claim: Claim) -> None:
        folder = experiment_folder(self._settings, claim.experiment_id)
        run: ExperimentRun | None = None

        def seconds() -> float:
            return claim.runtime_seconds if run is None else run.seconds

        interval = self._settings.train.lease_seconds / 4
        with LeaseKeeper(self._leases, claim, seconds, interval) as keeper:
            try:
                run = ExperimentRun(claim.config, self._settings.train, self._data, folder)
                self._say(f"{claim.experiment_id}: step {run.step} of {claim.config.num_steps}")
                self._advance(run, keeper)
            except DivergenceError as error:
                keeper.fail("diverged", f"training diverged: {error}; try a lower learning rate")
            except (UsageError, RuntimeError, MemoryError) as error:
                # What the machine could not do, above all for lack of memory (torch raises RuntimeError then).
                first_line = str(error).partition("\n")[0]
                keeper.fail("error", f"training failed: {first_line or type(error).__name__}")
        if not self._leases.is_unfinished(claim.experiment_id):
            shutil.rmtree(folder, ignore_errors=True)
            self._say(f"{claim.experiment_id}: ended")

    def _advance(self, run: ExperimentRun, keeper: LeaseKeeper) -> None:
        """Train until the end, the end of the time, the loss of the lease, or a request to stop."""
        if run.val_losses:
            keeper.report(run.val_losses, run.val_steps)
        while not run.finished:
            if keeper.over.is_set():
                return
            if keeper.out_of_time:
                break
            if self._should_stop():
                run.save()
                keeper.give_back()
                return
            validated = run.advance()
            if validated:
                keeper.report(run.val_losses, run.val_steps)
            if not run.finished:
                run.save(if_due=not validated)
        keeper.complete()


def experiment_folder(settings: ServerSettings, experiment_id: str) -> Path:
    """Where an experiment's checkpoints are while it is unfinished."""
    return settings.data_dir / "experiments" / experiment_id


def parent_has_died(parent: int | None) -> bool:
    """Whether the process that started this one is gone; False if that is not to be watched."""
    return parent is not None and os.getppid() != parent
