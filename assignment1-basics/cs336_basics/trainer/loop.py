"""The training loop: when to log, validate, save and stop. What a step does is in `trainer.py`."""

import dataclasses
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from cs336_basics.accounting import training_flops_per_token
from cs336_basics.atomic_file import atomic_write
from cs336_basics.check_pointing import (
    FINAL_NAME,
    checkpoint_name,
    remove_unfinished_checkpoints,
    resolve_checkpoint,
)
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.machine import machine_description
from cs336_basics.run_log import RunLog, SilentLog
from cs336_basics.trainer.interrupts import StopRequest
from cs336_basics.trainer.peak_flops import peak_flops
from cs336_basics.trainer.samples import sample_texts
from cs336_basics.trainer.trainer import DivergenceError, StepOutcome, Trainer
from cs336_basics.training_config import TrainConfig
from cs336_basics.training_data import open_training_data

Ending = Literal["finished", "out of time", "interrupted", "diverged"]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        ending: "finished" (all steps), "out of time" (`max_minutes`), "interrupted" (Ctrl-C or SIGTERM), "diverged".
        message: one sentence on an ending that is not "finished"; else empty.
        final_val_loss, best_val_loss: of the last and of the best validation, nats per token; None before the first.
        checkpoint_path: the last checkpoint written, or the one resumed from; None if there is none.
        metrics_path, report_path: the JSONL log and the HTML report.
        steps, tokens, seconds: of the whole run, time before resuming included.
        num_parameters: parameters of the model.
    """

    ending: Ending
    message: str
    final_val_loss: float | None
    best_val_loss: float | None
    checkpoint_path: Path | None
    metrics_path: Path
    report_path: Path
    steps: int
    tokens: int
    seconds: float
    num_parameters: int

    @property
    def diverged(self) -> bool:
        """Whether a loss, a gradient or a weight became NaN or infinite."""
        return self.ending == "diverged"

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to stop; it can be resumed from `checkpoint_path`."""
        return self.ending == "interrupted"


class _Run:
    """One call of `train`: a trainer, its logs and its checkpoints."""

    def __init__(
        self,
        config: TrainConfig,
        progress: bool,
        on_step: Callable[[dict[str, Any]], None] | None,
        trainer_class: type[Trainer],
    ) -> None:
        self.on_step = on_step
        self.progress = progress
        name = config.wandb_run_name or time.strftime("%Y-%m-%d_%H-%M-%S")
        self.run_dir = Path(config.run_dir or Path("runs") / name)
        # A device that is not here or a folder that cannot be written to is told before data are made.
        resolve_device(config.device)
        require_writable("run_dir", self.run_dir)
        require_writable("save_ckp_path", Path(config.save_ckp_path))
        resumed = None
        if config.resume_ckp is not None:
            resumed = resolve_checkpoint(config.resume_ckp, config.save_ckp_path, self.say)
        data = open_training_data(config, announce=self.say)
        self.trainer = trainer_class(config, config.model_config(data.vocab_size), data.train, data.valid)
        self.validations: dict[str, float | None] = {"final_val_loss": None, "best_val_loss": None}
        self.wandb_id = uuid.uuid4().hex[:8]
        self.tokenizer_sha256 = data.tokenizer_sha256
        self.numbered: list[Path] = []  # those of this run, the oldest first
        if resumed is not None:
            self._resume(resumed, config)
        # What was chosen for this run, not what was left open, goes into checkpoints and logs.
        self.config = self.trainer.config = dataclasses.replace(
            config, run_dir=str(self.run_dir), vocab_size=self.trainer.model_config.vocab_size, resume_ckp=None
        )
        self.last_checkpoint = resumed
        if self.trainer.writes:
            self.log = RunLog(self.run_dir, self.trainer.step if resumed is not None else None)
        else:
            self.log = SilentLog(self.run_dir)
        self._flops_per_token = training_flops_per_token(self.trainer.model_config)
        dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
        peak = peak_flops(self.trainer.device, dtype)
        self._peak = peak and peak * self.trainer.num_devices
        self._window_seconds, self._window_tokens = 0.0, 0

    def say(self, message: str) -> None:
        """Tell the user, unless progress is off."""
        if self.progress:
            tqdm.write(message)

    def _resume(self, path: Path, config: TrainConfig) -> None:
        checkpoint = self.trainer.restore(path)
        if self.trainer.step > config.train_steps:
            raise UsageError(
                f"train_steps is {config.train_steps}, but {path} has {self.trainer.step} steps behind it; "
                "allowed are at least as many"
            )
        self.validations = checkpoint.get("validations", self.validations)
        self.wandb_id = checkpoint.get("wandb_id", self.wandb_id)
        folder = Path(config.save_ckp_path)
        if folder.resolve() == path.parent.resolve():
            self.numbered = [folder / name for name in checkpoint.get("numbered_checkpoints", [])]
        if self.trainer.writes:
            remove_unfinished_checkpoints(folder)

    def describe(self) -> None:
        """Write config.json, start wandb, and tell the user what is about to run."""
        trainer, config = self.trainer, self.config
        description = {
            "train_config": config.to_dict(),
            "model_config": trainer.model_config.to_dict(),
            "num_parameters": trainer.num_parameters,
            "train_tokens": len(trainer.train_tokens),
            "valid_tokens": len(trainer.valid_tokens),
            "machine": machine_description(trainer.device),
        }
        if trainer.writes:
            with atomic_write(self.run_dir / "config.json", "w") as file:
                json.dump(description, file, indent=1)
        if config.wandb_project and not config.no_wandb:
            name = config.wandb_run_name or self.run_dir.name
            self.log.start_wandb(config.wandb_project, name, description, self.wandb_id)
        self.say(
            f"{trainer.num_parameters:,} parameters on {trainer.device}, {config.dtype}; "
            f"{len(trainer.train_tokens):,} training tokens; steps {trainer.step} to {config.train_steps} of "
            f"{config.batch_size} x {config.context_len} tokens; log in {self.run_dir}"
        )

    def save(self, name: str) -> None:
        """Write a checkpoint of that name and remove numbered ones beyond `keep_checkpoints`."""
        path = Path(self.config.save_ckp_path) / name
        numbered = list(self.numbered)
        if name != FINAL_NAME and path not in numbered:
            numbered.append(path)
        self.trainer.save(
            path,
            validations=self.validations,
            wandb_id=self.wandb_id,
            numbered_checkpoints=[kept.name for kept in numbered],
        )
        self.last_checkpoint, self.numbered = path, numbered
        while self.config.keep_checkpoints and len(self.numbered) > self.config.keep_checkpoints:
            oldest = self.numbered.pop(0)
            if self.trainer.writes:
                oldest.unlink(missing_ok=True)

    def validate(self) -> float:
        """Measure the validation loss and remember it."""
        loss = self.trainer.evaluate()
        if not np.isfinite(loss):
            raise DivergenceError(f"the validation loss became {loss}")
        best = self.validations["best_val_loss"]
        self.validations = {"final_val_loss": loss, "best_val_loss": loss if best is None else min(best, loss)}
        return loss

    def _place(self) -> dict[str, Any]:
        return {"step": self.trainer.step, "seconds": round(self.trainer.seconds, 3), "tokens": self.trainer.tokens}

    def _step_entry(self, outcome: StepOutcome) -> dict[str, Any]:
        rate = self._window_tokens / self._window_seconds
        self._window_seconds, self._window_tokens = 0.0, 0
        return {
            "train_loss": outcome.loss.item(),
            "lr": outcome.lr,
            "grad_norm": outcome.gradient_norm.item(),
            "tokens_per_second": round(rate, 1),
            "mfu": round(rate * self._flops_per_token / self._peak, 4) if self._peak else None,
        }

    def _out_of_time(self) -> bool:
        return self.config.max_minutes is not None and self.trainer.seconds >= 60 * self.config.max_minutes

    def go(self, stop: StopRequest, bar: tqdm) -> tuple[Ending, str]:
        """Train until the last step, the end of the time, or a request to stop."""
        trainer, config = self.trainer, self.config
        if trainer.step == 0:
            self.log.write({**self._place(), "val_loss": self.validate()})
        elif trainer.step < config.train_steps and any(trainer.agree(self._out_of_time())):
            return "out of time", (
                f"the {config.max_minutes:g} minutes of max_minutes were used up before resuming from "
                f"{self.last_checkpoint}; give more to go on"
            )
        ending: Ending = "finished"
        while trainer.step < config.train_steps:
            started = time.perf_counter()
            outcome = trainer.train_step()
            out_of_time, asked_to_stop = trainer.agree(self._out_of_time(), stop.requested)
            last = out_of_time or trainer.step == config.train_steps
            log_due = trainer.step % config.log_intervals == 0 or last
            val_due = trainer.step % config.val_interval == 0 or last
            save_due = trainer.step % config.save_intervals == 0
            if log_due or val_due or save_due:
                trainer.require_finite(outcome)
            self._window_seconds += time.perf_counter() - started
            self._window_tokens += config.batch_size * config.context_len
            entry = self._place()
            if log_due:
                entry |= self._step_entry(outcome)
                bar.set_postfix_str(
                    f"loss {entry['train_loss']:.3f}, lr {outcome.lr:.1e}, {entry['tokens_per_second']:,.0f} tok/s"
                )
            if val_due:
                entry["val_loss"] = self.validate()
                self.say(f"step {trainer.step}: validation loss {entry['val_loss']:.4f}")
            if log_due or val_due:
                self.log.write(entry)
            if self.on_step is not None:
                self.on_step(entry)
            bar.update()
            if save_due:
                self.save(checkpoint_name(trainer.step))
            if last:
                ending = "out of time" if trainer.step < config.train_steps else "finished"
                break
            if asked_to_stop:
                if not save_due:
                    self.save(checkpoint_name(trainer.step))
                return "interrupted", f"stopped after step {trainer.step} as asked"
        self.save(FINAL_NAME)
        return ending, f"stopped after {config.max_minutes:g} minutes as asked" if ending == "out of time" else ""

    def result(self, ending: Ending, message: str) -> TrainResult:
        """Write the report and sum the run up."""
        from cs336_basics.run_report import REPORT_NAME, write_run_report  # matplotlib takes a second to load

        self.log.close()
        report, samples = self.run_dir / REPORT_NAME, []
        if ending not in ("interrupted", "diverged"):
            model = self.trainer.whole_model()
            if self.trainer.writes:
                samples = sample_texts(model, self.config, self.tokenizer_sha256)
        if self.trainer.writes:
            report = write_run_report(self.run_dir, ending, samples, message)
        return TrainResult(
            ending=ending,
            message=message,
            **self.validations,
            checkpoint_path=self.last_checkpoint,
            metrics_path=self.log.path,
            report_path=report,
            steps=self.trainer.step,
            tokens=self.trainer.tokens,
            seconds=self.trainer.seconds,
            num_parameters=self.trainer.num_parameters,
        )


def require_writable(setting: str, folder: Path) -> None:
    """Refuse a folder that cannot be written to, or made; nothing is made yet.

    Raises:
        UsageError: naming the setting, the folder and what stands in the way.
    """
    existing = folder
    while not os.path.exists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"{setting} {folder} cannot be a folder: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"{setting} {folder} cannot be written to: there is no permission to write to {existing}")


def train(
    config: TrainConfig,
    *,
    progress: bool = True,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    trainer_class: type[Trainer] = Trainer,
) -> TrainResult:
    """Train a model, from the beginning or from a checkpoint.

    The first Ctrl-C or SIGTERM ends the run after the current step with a checkpoint. Resumed from any of its
    checkpoints, on the same machine and with the same number of threads, a run goes on bit for bit as if it had never
    been stopped; with `compile` on a GPU, up to rounding.

    Args:
        config: the settings. With `resume_ckp`, the model's must be those of the checkpoint; `resumed_config` takes
            them from there.
        progress: show a progress bar and messages.
        on_step: called after every step with `step`, `seconds`, `tokens`, and at log steps and validations with what
            goes into the log.
        trainer_class: what a step, a validation and a checkpoint are.

    Raises:
        UsageError: data, device, folders, settings or the checkpoint cannot be used.
    """
    run = _Run(config, progress, on_step, trainer_class)
    with run.log, StopRequest() as stop:
        run.describe()
        bar = tqdm(
            total=run.config.train_steps, initial=run.trainer.step, unit="step", desc="training",
            disable=not progress,
        )  # fmt: skip
        with bar:
            try:
                ending, message = run.go(stop, bar)
            except DivergenceError as error:
                good = run.last_checkpoint
                ending, message = (
                    "diverged",
                    (
                        f"training diverged after {run.trainer.step} steps: {error}; "
                        + (f"the last good checkpoint is {good}" if good else "there is no checkpoint yet")
                        + "; try a lower max_lr"
                    ),
                )
        return run.result(ending, message)


def measure_step_seconds(config: TrainConfig, steps: int = 3) -> float:
    """The median time of one optimizer step, measured on random tokens after one to warm up.

    No data is read and nothing is written, so a caller can choose `train_steps` to fit a time budget beforehand.

    Args:
        config: the settings; `vocab_size` must be given.
        steps: how many steps to time.
    """
    if config.vocab_size is None:
        raise ValueError("measure_step_seconds needs a config with vocab_size")
    tokens = np.random.default_rng(0).integers(config.vocab_size, size=4 * config.context_len + 1)
    trainer = Trainer(config, config.model_config(config.vocab_size), tokens, tokens)
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        trainer.train_step().loss.item()
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))
