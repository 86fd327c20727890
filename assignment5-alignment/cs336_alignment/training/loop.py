"""The loop around a trainer: when to log, evaluate, save and stop."""

import json
import math
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from cs336_alignment.evaluation_mode import evaluation_mode
from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.trainer import Trainer
from cs336_basics.atomic_file import atomic_write
from cs336_basics.check_pointing import checkpoint_name, checkpoints_newest_first, remove_unfinished_checkpoints
from cs336_basics.command_line import UsageError
from cs336_basics.machine import machine_description
from cs336_basics.run_log import RunLog, SilentLog
from cs336_basics.trainer.interrupts import StopRequest
from cs336_basics.trainer.loop import require_writable
from cs336_basics.trainer.random_state import capture_random_state, restore_random_state
from cs336_basics.trainer.trainer import DivergenceError

MODEL_FOLDER = "model"
Ending = Literal["finished", "interrupted", "diverged"]


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        ending: "finished" (all steps), "interrupted" (Ctrl-C or SIGTERM), "diverged" (NaN or infinity).
        message: one sentence on an ending that is not "finished"; else empty.
        folder: the run's.
        model: the folder of the trained model, if the run finished.
        checkpoint: the last one written, or the one resumed from.
        steps, seconds: of the whole run, time before resuming included.
        metrics: the last entry of the log with evaluation in it.
    """

    ending: Ending
    message: str
    folder: Path
    model: Path | None
    checkpoint: Path | None
    steps: int
    seconds: float
    metrics: dict[str, float | None]


def with_folder(config: TrainingConfig, name: str) -> TrainingConfig:
    """The settings with `out` chosen: that of the checkpoint's run, else a new one under runs/.

    Raises:
        UsageError: the folder cannot be written to.
    """
    if config.out is None:
        if config.resume_ckp is not None:
            folder = Path(config.resume_ckp).parent.parent
        else:
            folder = Path("runs") / f"{name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
        config = replace(config, out=str(folder))
    require_writable("out", Path(config.out))
    return config


class _Run:
    """One call of `train`: a trainer, its log and its checkpoints."""

    def __init__(self, trainer: Trainer, progress: bool) -> None:
        self.trainer, self.config, self.progress = trainer, trainer.config, progress
        self.folder = Path(self.config.out)
        self.wandb_id = uuid.uuid4().hex[:8]
        self.last_checkpoint: Path | None = None
        self.last_evaluation: dict[str, float | None] = {}
        resumed = self.config.resume_ckp
        if resumed is not None:
            checkpoint = trainer.restore_checkpoint(resumed)
            self.wandb_id, self.last_evaluation = checkpoint["wandb_id"], checkpoint["last_evaluation"]
            self.last_checkpoint = Path(resumed)
            if trainer.step > trainer.num_steps:
                raise UsageError(
                    f"num_steps is {trainer.num_steps}, but {resumed} has {trainer.step} steps behind it; allowed are "
                    "at least as many"
                )
            if trainer.replica.writes:
                remove_unfinished_checkpoints(self.config.checkpoint_folder)
        elif trainer.replica.writes:
            for left_by_another_run in checkpoints_newest_first(self.config.checkpoint_folder):
                left_by_another_run.unlink()
        resume_step = None if resumed is None else trainer.step
        self.log = RunLog(self.folder, resume_step) if trainer.replica.writes else SilentLog(self.folder)
        trainer.open_records(self.folder, resume_step)

    def say(self, message: str) -> None:
        if self.progress and self.trainer.replica.writes:
            tqdm.write(message)

    def describe(self) -> None:
        """Write config.json, start wandb, and tell the user what is about to run."""
        trainer, config = self.trainer, self.config
        trained, total = trainer.replica.count_parameters()
        description = {
            "program": trainer.name,
            "training_config": config.to_dict(),
            "num_parameters": total,
            "num_trained_parameters": trained,
            "machine": machine_description(trainer.device),
        }
        if trainer.replica.writes:
            with atomic_write(self.folder / "config.json", "w") as file:
                json.dump(description, file, indent=1)
        if config.wandb_project and not config.no_wandb:
            name = config.wandb_run_name or self.folder.name
            self.log.start_wandb(config.wandb_project, name, description, self.wandb_id)
        share = "" if trained == total else f" ({trained / total:.2%} of {total:,})"
        self.say(
            f"{trained:,} trained parameters{share} on {trainer.device}; steps {trainer.step} to {trainer.num_steps}; "
            f"log in {self.folder}"
        )

    def save(self) -> None:
        """Write a checkpoint of this step and remove old ones beyond `keep_checkpoints`."""
        path = self.config.checkpoint_folder / checkpoint_name(self.trainer.step)
        self.trainer.save_checkpoint(path, wandb_id=self.wandb_id, last_evaluation=self.last_evaluation)
        self.last_checkpoint = path
        if self.config.keep_checkpoints and self.trainer.replica.writes:
            for old in checkpoints_newest_first(self.config.checkpoint_folder)[self.config.keep_checkpoints :]:
                old.unlink(missing_ok=True)

    def place(self) -> dict[str, float]:
        return {"step": self.trainer.step, "seconds": round(self.trainer.seconds, 3)}

    def evaluate(self) -> dict[str, float | None]:
        random_state = capture_random_state()
        with evaluation_mode(self.trainer.replica.module):
            metrics = _plain(self.trainer.evaluate())
        restore_random_state(random_state)
        if metrics:
            self.last_evaluation = {**self.place(), **metrics}
            self.say(f"step {self.trainer.step}: " + _in_words(metrics))
        return metrics

    def go(self, stop: StopRequest, bar: tqdm, on_step: Callable[[dict], None] | None) -> Ending:
        """Train until the last step or a request to stop."""
        trainer, config = self.trainer, self.config
        if trainer.step == 0 and (metrics := self.evaluate()):
            self.log.write({**self.place(), **metrics})
        while trainer.step < trainer.num_steps:
            metrics = _plain(trainer.train_step())
            trainer.step += 1
            is_last = trainer.step == trainer.num_steps
            entry: dict[str, float | None] = self.place()
            log_due = trainer.step % config.log_every == 0 or is_last
            if log_due:
                entry |= metrics
            bar.set_postfix_str(_in_words({name: metrics[name] for name in ("loss", "reward") if name in metrics}))
            if is_last or (config.eval_every and trainer.step % config.eval_every == 0):
                entry |= self.evaluate()
            if len(entry) > len(self.place()):
                self.log.write(entry)
            bar.update()
            asked_to_stop = trainer.replica.agree(stop.requested) and not is_last
            if is_last or asked_to_stop or (config.save_every and trainer.step % config.save_every == 0):
                self.save()
            if on_step is not None:
                on_step(entry)
            if asked_to_stop:
                return "interrupted"
        return "finished"


def train(trainer: Trainer, *, progress: bool = True, on_step: Callable[[dict], None] | None = None) -> TrainingResult:
    """Run a trainer to its end, from the beginning or from `config.resume_ckp`.

    The first Ctrl-C or SIGTERM ends the run after the current step with a checkpoint. Resumed from any of its
    checkpoints, on the same machine and with the same number of threads, a run goes on bit for bit as if it had never
    been stopped. In the folder `config.out`: `config.json`, `metrics.jsonl`, `checkpoints/`, and at the end `model/`.

    Args:
        trainer: its `config.out` names the run's folder (see `with_folder`).
        progress: show a progress bar and messages.
        on_step: called after every step, when it is logged and its checkpoint written.

    Raises:
        UsageError: the checkpoint cannot be resumed.
    """
    run = _Run(trainer, progress)
    message, model = "", None
    with run.log, StopRequest() as stop:
        run.describe()
        bar = tqdm(
            total=trainer.num_steps, initial=trainer.step, unit="step", desc=trainer.name,
            disable=not (progress and trainer.replica.writes),
        )  # fmt: skip
        try:
            with bar:
                ending = run.go(stop, bar, on_step)
            if ending == "finished":
                model = run.folder / MODEL_FOLDER
                trainer.save_model(model)
            else:
                message = f"stopped after step {trainer.step} as asked"
        except DivergenceError as error:
            ending = "diverged"
            kept = f"the last checkpoint is {run.last_checkpoint}" if run.last_checkpoint else "there is no checkpoint"
            message = f"training diverged after {trainer.step} steps: {error}; {kept}; try a lower lr"
        finally:
            trainer.close()
    return TrainingResult(
        ending, message, run.folder, model, run.last_checkpoint, trainer.step, trainer.seconds, run.last_evaluation
    )


def tell(result: TrainingResult, program: str) -> None:
    """Print how a run of `program` went.

    Raises:
        SystemExit: it did not end well: with code 1 if it diverged, 130 if it was interrupted.
    """
    if result.ending == "diverged":
        print(f"error: {result.message}", file=sys.stderr)
        raise SystemExit(1)
    if result.ending == "interrupted":
        print(f"{result.message}; go on with: uv run python {program} --resume_ckp {result.checkpoint}")
        raise SystemExit(130)
    evaluation = _in_words({name: value for name, value in result.metrics.items() if name not in ("step", "seconds")})
    print(
        f"{evaluation + ', ' if evaluation else ''}{result.steps} steps, {result.seconds / 60:.1f} minutes\n"
        f"model:      {result.model}\nlog:        {result.folder / 'metrics.jsonl'}\ncheckpoint: {result.checkpoint}"
    )


def _plain(metrics: dict[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: what is not finite (the mean length of no responses) becomes null."""
    values = {name: float(value) if not isinstance(value, int) else value for name, value in metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _in_words(metrics: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None)
