"""A training run that can be advanced, measured, saved and restored; each program says what a step is."""

import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cs336_alignment.policy import save_policy
from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.optimizer import learning_rate
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.update import Metrics, Microbatch, UpdateOutcome, autocast_to, update
from cs336_basics.atomic_file import atomic_write
from cs336_basics.check_pointing import read_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.trainer.random_state import capture_random_state, restore_random_state
from cs336_basics.trainer.trainer import require_finite_state


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Trainer(ABC):
    """The base of the programs' trainers.

    Args:
        config: the settings.
        replica: what is trained.
        tokenizer: saved beside the trained model.

    Attributes:
        name: of the program, for folders and messages.
        num_steps: of the whole run. A step may hold several updates, as in reinforcement learning.
        num_updates: optimizer updates of the whole run, for the learning-rate schedule.
        step, updates: steps and updates done.
    """

    name: ClassVar[str]
    num_steps: int
    num_updates: int

    def __init__(self, config: TrainingConfig, replica: Replica, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.replica, self.tokenizer = config, replica, tokenizer
        self.step = 0
        self.updates = 0
        self._seconds_before, self._started = 0.0, time.perf_counter()
        seed_everything(config.seed)

    @abstractmethod
    def train_step(self) -> dict[str, float]:
        """Take the next step (`self.step` is still its number, counted from 0); returns what to log.

        Raises:
            DivergenceError: a loss or gradient is not finite.
        """

    def evaluate(self) -> dict[str, float]:
        """Measure the policy, in evaluation mode, on held-out data; returns what to log.

        The random states are afterwards as they were before, so that evaluating more or less often changes no training.
        """
        return {}

    def extra_state(self) -> dict[str, Any]:
        """What a resumed run needs besides weights, optimizer and random states; plain values and tensors."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - most have none
        """Take over what `extra_state` returned."""

    def open_records(self, folder: Path, resume_step: int | None) -> None:  # noqa: B027 - most have none
        """Open the program's files of records in the run's folder; entries after `resume_step` are dropped."""

    def close(self) -> None:  # noqa: B027 - most have none
        """End what was opened: engines, files."""

    @property
    def policy(self) -> PreTrainedModel:
        """The language model that is saved in the end."""
        return self.replica.policy

    @property
    def device(self) -> torch.device:
        """Where training takes place."""
        return self.replica.device

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far, time before resuming included."""
        return self._seconds_before + time.perf_counter() - self._started

    def autocast(self) -> torch.autocast:
        """The context of forward passes, evaluations included."""
        return autocast_to(self.config.autocast, self.device)

    def update(
        self,
        microbatches: Sequence[Microbatch],
        loss_share: Callable[[Microbatch], tuple[Float[Tensor, ""], Metrics]],
    ) -> dict[str, float]:
        """One optimizer update at the scheduled learning rate; see `update.update`.

        Returns:
            `loss`, `grad_norm`, `lr`, and the metrics.
        """
        lr = learning_rate(self.updates, self.num_updates, self.config)
        outcome: UpdateOutcome = update(
            self.replica, microbatches, loss_share,
            lr=lr, max_grad_norm=self.config.max_grad_norm, autocast=self.config.autocast,
        )  # fmt: skip
        self.updates += 1
        return {"loss": outcome.loss, "grad_norm": outcome.gradient_norm, "lr": lr, **outcome.metrics}

    def save_model(self, folder: Path) -> None:
        """Write the trained policy as a Hugging Face folder, adapters merged."""
        weights = self.replica.merged_weights()
        if self.replica.writes:
            save_policy(self.policy, self.tokenizer, folder, weights)

    def save_checkpoint(self, path: str | os.PathLike, **more: Any) -> None:
        """Write everything the run needs to go on, and `more`, to one file, whole or not at all.

        Raises:
            DivergenceError: a weight or a moment is not finite; nothing is written.
        """
        require_finite_state(self.replica.module, self.replica.optimizer)
        checkpoint = {
            "model_state_dict": self.replica.trained_state(),
            "optimizer_state_dict": self.replica.optimizer_state(),
            "iteration": self.step,
            "updates": self.updates,
            "program": self.name,
            "training_config": {**self.config.to_dict(), "resume_ckp": None},
            "random_state": capture_random_state(),
            "extra_state": self.extra_state(),
            "seconds": self.seconds,
            **more,
        }
        if self.replica.writes:
            with atomic_write(path) as file:
                torch.save(checkpoint, file)

    def restore_checkpoint(self, path: str | os.PathLike) -> dict[str, Any]:
        """Put the run where it was when the checkpoint was saved.

        Returns:
            The checkpoint's dictionary, for what else was saved in it.

        Raises:
            UsageError: the file is no checkpoint, one of another program, or one of another model.
        """
        checkpoint = read_checkpoint(Path(path))
        if checkpoint.get("program") != self.name:
            raise UsageError(f"{path} cannot be resumed: it is not of {self.name}, but of {checkpoint.get('program')}")
        try:
            self.replica.load_trained_state(checkpoint["model_state_dict"])
            self.replica.load_optimizer_state(checkpoint["optimizer_state_dict"])
        except (RuntimeError, ValueError) as error:
            first_line = str(error).splitlines()[0]
            raise UsageError(f"{path} holds another model than {self.config.model}: {first_line}") from None
        self.step, self.updates = checkpoint["iteration"], checkpoint["updates"]
        self._seconds_before, self._started = checkpoint["seconds"], time.perf_counter()
        self.load_extra_state(checkpoint["extra_state"])
        restore_random_state(checkpoint["random_state"])
        return checkpoint
