"""Running a training program in one process, in processes of this machine, or in those that torchrun started."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch.distributed as dist

from cs336_alignment.parallel.config import ParallelConfig
from cs336_alignment.policy import resolve_model
from cs336_alignment.rollout_log import write_rollout_page
from cs336_alignment.rollout_log.reading import ROLLOUTS_NAME
from cs336_alignment.training.loop import TrainingResult, tell, train, with_folder
from cs336_alignment.training.trainer import Trainer
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_systems.parallel_training.local_ranks import RankFailure, run_ranks
from cs336_systems.parallel_training.run import threads_per_process, train_device
from cs336_systems.process_group import process_group, rank_device, started_by_torchrun

Program = Callable[[ParallelConfig, bool], TrainingResult]
"""Trains as the settings say, in each process; the second argument is whether to show progress."""


def run_program(program: Program, config: ParallelConfig, name: str, progress: bool = True) -> TrainingResult | None:
    """Train, in as many processes as the settings or torchrun say.

    Args:
        program: a module-level function, called in every process.
        config: the settings.
        name: for the run's folder.
        progress: show a progress bar and messages, of the first process.

    Returns:
        The first process's result; None in torchrun's other processes.

    Raises:
        UsageError: the settings do not go together with the processes, or with what is here.
        RankFailure: a process died.
    """
    if started_by_torchrun():
        return _run_under_torchrun(program, config, name, progress)
    settled = _settle(config, name)
    if config.parallel == "none":
        return program(settled, progress)
    device = train_device(config)
    processes = config.processes or (max(2, _num_gpus()) if device.type == "cuda" else 2)
    return run_ranks(program, processes, settled, progress, device=device, num_threads=threads_per_process(processes))


def run_and_tell(program: Program, config: ParallelConfig, name: str, script: str) -> None:
    """`run_program`, then write the page of its rollouts and print how it went.

    Raises:
        SystemExit: it did not end well: with code 1 if it diverged or a process died, 130 if it was interrupted.
    """
    try:
        result = run_program(program, config, name)
    except RankFailure as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if result is None:
        return
    page = write_rollout_page(result.folder) if (result.folder / ROLLOUTS_NAME).is_file() else None
    tell(result, script)
    if page is not None:
        print(f"rollouts:   {page}")


def train_and_tell(make_trainer: Callable[[Any], Trainer], config: ParallelConfig, name: str) -> None:
    """`run_and_tell` of a program that trains and does nothing else.

    Args:
        make_trainer: a module-level function that makes a process's trainer from the settings.
        config: the settings.
        name: of the script and for the run's folder.

    Raises:
        SystemExit: as `run_and_tell`.
    """
    run_and_tell(partial(_make_and_train, make_trainer), config, name, f"scripts/{name}.py")


def _make_and_train(make_trainer: Callable[[Any], Trainer], config: ParallelConfig, progress: bool) -> TrainingResult:
    return train(make_trainer(config), progress=progress)


def _settle(config: ParallelConfig, name: str) -> ParallelConfig:
    """Decide and make once, for all processes, what each would decide and make for itself."""
    resolve_model(config.model)
    config = with_folder(config, name)
    device = train_device(config)
    return config if resolve_device(config.device).type == device.type else replace(config, device=device.type)


def _run_under_torchrun(program: Program, config: ParallelConfig, name: str, progress: bool) -> TrainingResult | None:
    with process_group(rank_device(train_device(config))):
        if config.parallel == "none" and dist.get_world_size() > 1:
            raise UsageError(f"{dist.get_world_size()} processes need a strategy: give --parallel ddp or fsdp")
        settled: list[Any] = [None]
        if dist.get_rank() == 0:
            try:
                settled = [_settle(config, name)]
            except UsageError as error:
                settled = [str(error)]
        dist.broadcast_object_list(settled, 0)
        if isinstance(settled[0], str):
            raise UsageError(settled[0])
        result = program(settled[0], progress and dist.get_rank() == 0)
        return result if dist.get_rank() == 0 else None


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()
