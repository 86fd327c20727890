"""One submitted experiment as a run of assignment 1's trainer, which can be left at any step and taken up again."""

import math
import time
from contextlib import suppress
from pathlib import Path

from cs336_basics.check_pointing import (
    checkpoint_name,
    checkpoints_newest_first,
    latest_good_checkpoint,
    remove_unfinished_checkpoints,
)
from cs336_basics.command_line import UsageError
from cs336_basics.model.config import TransformerConfig
from cs336_basics.trainer.trainer import DivergenceError, Trainer, decay_groups
from cs336_basics.training_config import TrainConfig
from cs336_basics.training_data import TrainingData
from cs336_scaling.schemas.edition_2026 import AdamWConfig, SGDConfig, TrainingConfig
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH
from cs336_scaling.server.settings import TrainSettings
from cs336_scaling.server.sgd import SGD

_KEPT_CHECKPOINTS = 2  # a damaged one still leaves one to go on from


class ExperimentRun:
    """The run's state: model, optimizer, data order, clock, validations.

    Args:
        config: the submission, checked by `TrainingBackend`.
        settings: the server's.
        data: the tokens.
        folder: of this experiment's checkpoints. If it holds any, the run goes on from the last good one, bit for bit
            as if it had never stopped, and its clock shows what it showed then: time that a killed worker lost is not
            counted.
    """

    def __init__(self, config: TrainingConfig, settings: TrainSettings, data: TrainingData, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._checkpoint_seconds = settings.checkpoint_seconds
        self._windows = max(1, settings.validation_tokens // settings.sequence_length)
        largest_part = max(1, settings.micro_batch_tokens // settings.sequence_length)
        asked = config.val_batch_size * SEQUENCE_LENGTH // settings.sequence_length
        # A divisor, so that all experiments are measured on the same windows whatever their val_batch_size.
        self._val_batch_size = _largest_divisor(self._windows, min(asked, largest_part))
        self.val_losses: list[float] = []
        self.val_steps: list[int] = []
        self._trainer = Trainer(
            _train_config(config, settings, largest_part), _model_config(config, settings), data.train, data.valid
        )
        optimizer = config.optimizer_config
        if isinstance(optimizer, SGDConfig):
            groups = decay_groups(self._trainer.model, optimizer.weight_decay)
            self._trainer.optimizer = SGD(groups, optimizer.lr_scheduler.peak_value, optimizer.momentum)
        remove_unfinished_checkpoints(folder)
        with suppress(UsageError):  # no checkpoint, or none that can be read: from the beginning
            checkpoint = self._trainer.restore(latest_good_checkpoint(folder)[0])
            self.val_losses, self.val_steps = checkpoint["val_losses"], checkpoint["val_steps"]
        self._saved_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far: training, validating and saving, since the model was built."""
        return self._trainer.seconds

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._trainer.step

    @property
    def finished(self) -> bool:
        """Whether all steps and validations are done."""
        return self.step == self._config.num_steps

    def advance(self) -> bool:
        """One optimizer step, and the validation if one is due.

        Returns:
            Whether there is a new validation.

        Raises:
            DivergenceError: the loss, a gradient or a weight is not finite.
        """
        outcome = self._trainer.train_step()
        if self.step % (self._config.num_steps // self._config.n_evals):
            return False
        self._trainer.require_finite(outcome)
        loss = self._trainer.evaluate(self._val_batch_size, self._windows // self._val_batch_size)
        if not math.isfinite(loss):
            raise DivergenceError(f"the validation loss became {loss}")
        self.val_losses, self.val_steps = [*self.val_losses, loss], [*self.val_steps, self.step]
        return True

    def save(self, *, if_due: bool = False) -> None:
        """Write a checkpoint; with `if_due`, only if the last one is `checkpoint_seconds` old."""
        if if_due and time.monotonic() - self._saved_at < self._checkpoint_seconds:
            return
        path = self._folder / checkpoint_name(self.step)
        self._trainer.save(path, val_losses=self.val_losses, val_steps=self.val_steps)
        for old in checkpoints_newest_first(self._folder)[_KEPT_CHECKPOINTS:]:
            old.unlink(missing_ok=True)
        self._saved_at = time.monotonic()


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, min(number, limit) + 1) if number % divisor == 0)


def _train_config(config: TrainingConfig, settings: TrainSettings, largest_part: int) -> TrainConfig:
    """The trainer's settings; a batch keeps its number of tokens where the server's sequences are shorter."""
    optimizer, schedule = config.optimizer_config, config.optimizer_config.lr_scheduler
    adamw = (
        {"beta1": optimizer.beta1, "beta2": optimizer.beta2, "eps": optimizer.eps}
        if isinstance(optimizer, AdamWConfig)
        else {}
    )
    rows = config.train_batch_size * SEQUENCE_LENGTH // settings.sequence_length
    return TrainConfig(
        context_len=settings.sequence_length,
        batch_size=rows,
        gradient_accumulation_steps=rows // _largest_divisor(rows, largest_part),
        train_steps=config.num_steps,
        max_lr=schedule.peak_value,
        min_lr=schedule.peak_value * schedule.final_lr_frac,
        warm_up_it=round(schedule.warmup_frac * config.num_steps),
        weight_decay=optimizer.weight_decay,
        clip_grad_norm=optimizer.grad_clip_norm or 0.0,
        seed=config.model_seed,
        device=settings.device,
        dtype=config.architecture_config.dtype,
        **adamw,
    )


def _model_config(config: TrainingConfig, settings: TrainSettings) -> TransformerConfig:
    shape = config.architecture_config
    return TransformerConfig(
        vocab_size=shape.vocab_size,
        context_length=settings.sequence_length,
        d_model=shape.hidden_size,
        num_layers=shape.num_hidden_layers,
        num_heads=shape.num_attention_heads,
        d_ff=shape.intermediate_size,
        rope_theta=shape.rope_theta,
        tie_embeddings=shape.tie_word_embeddings,
        norm_eps=shape.rms_norm_eps,
    )
