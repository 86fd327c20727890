"""Runs a study: trains its runs one after the other and writes tables, plots and a report.

Everything is kept in `OUT/STUDY/SCALE/`: for each run a folder with its log, report, checkpoint and `outcome.json`;
beside them the study's results. Called again, runs that have ended are not repeated, one that found too little memory
is tried again, and one that was interrupted or killed goes on from its latest checkpoint. A run counts as the same only
with the same settings and text; one of other settings is set aside, not overwritten.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.check_pointing import latest_good_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.experiments.results import write_results
from cs336_basics.experiments.study import Run, Scale, Study
from cs336_basics.experiments.tokens import CorpusFolders, prepare_tokens
from cs336_basics.run_log import METRICS_NAME, read_metrics
from cs336_basics.train import TrainConfig, measure_step_seconds, train


@dataclass(frozen=True)
class Options:
    """What the user chose for a study."""

    out: Path = Path("experiments_out")
    text_dir: Path = Path("data")
    scale: Scale = "cpu"
    device: str = "auto"
    seed: int = 0
    only: tuple[str, ...] = ()
    train_steps: int | None = None
    max_minutes: float | None = None
    wandb_project: str | None = None
    progress: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `ending` is "finished", "out of time", "diverged" or "out of memory"; a run counts as diverged too if its loss
    stayed finite but is no lower than before training.
    """

    run: str
    settings: dict[str, Any]
    ending: str
    message: str
    final_val_loss: float | None
    best_val_loss: float | None
    num_parameters: int | None
    steps: int
    tokens: int
    seconds: float
    checkpoint: str | None


def run_study(study: Study, options: Options) -> list[Outcome]:
    """Train what is not trained yet and write the study's results, anew after every run.

    Returns:
        The outcomes, in the study's order: of the runs asked for, and of others that have ended with the same options.

    Raises:
        UsageError: an option or the data cannot be used.
        KeyboardInterrupt: a run was asked to stop; the same call goes on with it.
    """
    say: Callable[[str], None] = tqdm.write if options.progress else lambda message: None
    options = replace(options, out=options.out.resolve())  # another spelling or working directory is the same study
    runs = study.select(list(options.only))
    resolve_device(options.device)
    for run in runs:  # what cannot be used is told before hours go into a tokenizer or the first run
        run_config(study, run, CorpusFolders(Path(), Path(), ""), Path(), options)
    corpus = prepare_tokens(
        study.corpus, study.vocab_size, options.scale, options.text_dir, options.out, say, options.progress
    )
    folder = options.out / study.name / options.scale
    outcomes = {
        run.name: outcome
        for run in study.runs
        if run not in runs and (outcome := _stored_outcome(study, run, corpus, folder / run.name, options))
    }
    for number, run in enumerate(runs, start=1):
        say(f"\n=== {study.title}, run {number} of {len(runs)}: {run.name}")
        outcome = _finished_or_trained(study, run, corpus, folder / run.name, options, say)
        outcomes[run.name] = outcome
        loss = "no validation" if outcome.final_val_loss is None else f"validation loss {outcome.final_val_loss:.4f}"
        say(f"=== {run.name}: {outcome.ending}, {loss}, {outcome.steps:,} steps in {outcome.seconds / 60:.1f} minutes")
        left_out = runs[number:] if study.stop_after_divergence and outcome.ending == "diverged" else ()
        is_last = bool(left_out) or number == len(runs)
        write_results(study, _in_order(study, outcomes), folder, corpus, options, with_sample=is_last)
        if left_out:
            say(f"{run.name} diverged: leaving out {', '.join(other.name for other in left_out)}")
            break
    return _in_order(study, outcomes)


def _in_order(study: Study, outcomes: dict[str, Outcome]) -> list[Outcome]:
    return [outcomes[run.name] for run in study.runs if run.name in outcomes]


def run_config(study: Study, run: Run, corpus: CorpusFolders, run_dir: Path, options: Options) -> TrainConfig:
    """The training program's settings for a run.

    Raises:
        UsageError: a setting is out of range.
    """
    settings: dict[str, Any] = {
        **study.base,
        **run.settings,
        "data_dir": str(corpus.data_dir),
        "tokenizer_dir": str(corpus.tokenizer_dir),
        "run_dir": str(run_dir),
        "save_ckp_path": str(run_dir / "checkpoints"),
        "keep_checkpoints": 1,
        "device": options.device,
        "seed": options.seed,
        "max_minutes": options.max_minutes,
    }
    if options.train_steps is not None:
        settings["train_steps"] = options.train_steps
        settings["warm_up_it"] = None
    if options.wandb_project is not None:
        settings |= {"wandb_project": options.wandb_project, "wandb_run_name": f"{study.name}-{run.name}"}
    if study.fill_minutes is not None and options.train_steps is None:
        settings |= {"max_minutes": options.max_minutes or study.fill_minutes}
    settings["save_intervals"] = max(1, settings.get("train_steps", TrainConfig.train_steps) // 10)
    return TrainConfig(**settings)


def _identity(config: TrainConfig, corpus: CorpusFolders) -> dict[str, Any]:
    """What makes a run the same. The corpus stands for its folder: equal settings on another text are another run."""
    return {**config.to_dict(), "corpus": json.loads((corpus.data_dir.parent / "made_from.json").read_text())}


def _stored_outcome(study: Study, run: Run, corpus: CorpusFolders, run_dir: Path, options: Options) -> Outcome | None:
    """How the run ended at an earlier call with the same settings and text, if it did."""
    begun, stored = _read_json(run_dir / "begun.json"), _read_json(run_dir / "outcome.json")
    identity = _identity(run_config(study, run, corpus, run_dir, options), corpus)
    return Outcome(**stored) if stored is not None and begun is not None and begun["identity"] == identity else None


def _finished_or_trained(
    study: Study, run: Run, corpus: CorpusFolders, run_dir: Path, options: Options, say: Callable[[str], None]
) -> Outcome:
    stored = _stored_outcome(study, run, corpus, run_dir, options)
    if stored is not None and stored.ending != "out of memory":  # memory may be free by now
        say("done already")
        return stored
    config = run_config(study, run, corpus, run_dir, options)
    identity = _identity(config, corpus)
    begun = _read_json(run_dir / "begun.json")
    if begun is not None and begun["identity"] == identity:
        config = TrainConfig(**begun["config"])
    else:
        if run_dir.is_dir():
            say(f"{run_dir} is of other settings and is kept as {_set_aside(run_dir)}")
        if study.fill_minutes is not None and options.train_steps is None:
            config = _fill_time(config, study.vocab_size, say)
        with atomic_write(run_dir / "begun.json", "w") as file:
            json.dump({"identity": identity, "config": config.to_dict()}, file, indent=1)
    outcome = _train(run, _resuming(config), options)
    with atomic_write(run_dir / "outcome.json", "w") as file:
        json.dump(asdict(outcome), file, indent=1)
    return outcome


def _set_aside(run_dir: Path) -> Path:
    """Rename a run's folder: what was trained with other settings may have taken hours."""
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.old{number}")).exists():
        number += 1
    return run_dir.rename(aside)


def _fill_time(config: TrainConfig, vocab_size: int, say: Callable[[str], None]) -> TrainConfig:
    """The same run with as many steps as fit into its `max_minutes` on this machine."""
    settings = config.to_dict()
    seconds = measure_step_seconds(TrainConfig(**{**settings, "vocab_size": vocab_size}), steps=20)
    settings["train_steps"] = max(1, int(0.97 * 60 * config.max_minutes / seconds))
    settings["save_intervals"] = max(1, settings["train_steps"] // 10)
    say(f"{1000 * seconds:.0f} ms a step: {settings['train_steps']:,} steps fill {config.max_minutes:g} minutes")
    return TrainConfig(**settings)


def _resuming(config: TrainConfig) -> TrainConfig:
    """The settings with which the run goes on from its latest readable checkpoint, if it has one."""
    try:
        path, _ = latest_good_checkpoint(config.save_ckp_path)
    except UsageError:
        return config
    return TrainConfig(**{**config.to_dict(), "resume_ckp": str(path)})


def _train(run: Run, config: TrainConfig, options: Options) -> Outcome:
    settings = {name: getattr(config, name) for name in TrainConfig.__dataclass_fields__}
    try:
        result = train(config, progress=options.progress)
    except torch.OutOfMemoryError as error:
        message = str(error).splitlines()[0]
        return Outcome(run.name, settings, "out of memory", message, None, None, None, 0, 0, 0.0, None)
    if result.interrupted:
        raise KeyboardInterrupt
    log = read_metrics(Path(config.run_dir) / METRICS_NAME)
    first = next((entry["val_loss"] for entry in log if "val_loss" in entry), math.inf)
    ending, message = result.ending, result.message
    if ending != "diverged" and result.final_val_loss is not None and result.final_val_loss >= first:
        ending = "diverged"
        message = f"validation loss {result.final_val_loss:.3f} is no lower than {first:.3f} before training"
    return Outcome(
        run=run.name,
        settings=settings,
        ending=ending,
        message=message,
        final_val_loss=result.final_val_loss,
        best_val_loss=result.best_val_loss,
        num_parameters=result.num_parameters,
        steps=result.steps,
        tokens=result.tokens,
        seconds=result.seconds,
        checkpoint=None if result.checkpoint_path is None else str(result.checkpoint_path),
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
