"""Running the trainer in one process, in processes of this machine, or in those that torchrun or Slurm started."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from cs336_basics.check_pointing import resolve_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.trainer.loop import TrainResult, require_writable, train
from cs336_basics.training_data import open_training_data
from cs336_systems.parallel_training.config import ParallelTrainConfig
from cs336_systems.parallel_training.local_ranks import run_ranks
from cs336_systems.parallel_training.trainer import ParallelTrainer, SystemsTrainer
from cs336_systems.process_group import process_group, rank_device


def train_device(config: ParallelTrainConfig) -> torch.device:
    """The kind of device to train on; Apple's GPUs have no communication library, so several processes use the CPU.

    Raises:
        UsageError: it is not there, or one GPU is named for several processes.
    """
    device = resolve_device(config.device)
    if config.parallel != "none":
        if device.index is not None:
            raise UsageError(f"device is {config.device!r}; every process takes a GPU of its own: give cuda or auto")
        if device.type == "mps":
            if config.device == "mps":
                raise UsageError("device 'mps' has no communication between processes; allowed are cuda and cpu")
            return torch.device("cpu")
    return device


def settle(config: ParallelTrainConfig, progress: bool = True) -> ParallelTrainConfig:
    """Decide, once for all processes, what each would decide for itself: folders, checkpoint, device; and make the data
    if they are missing.

    Raises:
        UsageError: data, device, folders or the checkpoint cannot be used.
    """
    say: Callable[[str], None] = print if progress else lambda sentence: None
    device = train_device(config)
    name = config.wandb_run_name or time.strftime("%Y-%m-%d_%H-%M-%S")
    run_dir = config.run_dir or str(Path("runs") / name)
    require_writable("run_dir", Path(run_dir))
    require_writable("save_ckp_path", Path(config.save_ckp_path))
    resume = config.resume_ckp and str(resolve_checkpoint(config.resume_ckp, config.save_ckp_path, say))
    open_training_data(config, announce=say)
    # "auto" stays in the checkpoint, so that the run may go on elsewhere.
    name = config.device if resolve_device(config.device).type == device.type else device.type
    return replace(config, run_dir=run_dir, resume_ckp=resume, device=name)


def _train_as_rank(config: ParallelTrainConfig, progress: bool) -> TrainResult:
    return train(config, progress=progress and dist.get_rank() == 0, trainer_class=ParallelTrainer)


def threads_per_process(processes: int) -> int:
    """Torch's threads for each of several processes on this machine, so that together they take its cores."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or max(1, torch.get_num_threads() // processes)


def train_locally(
    config: ParallelTrainConfig,
    *,
    progress: bool = True,
    on_start: Callable[[list[int]], None] = lambda pids: None,
) -> TrainResult:
    """Train in this process (`parallel` "none"), or in `processes` new ones of this machine.

    Args:
        config: the settings.
        progress: show a progress bar and messages.
        on_start: told the process ids of the ranks.

    Raises:
        UsageError: data, device, folders, settings or the checkpoint cannot be used.
        RankFailure: a process died.
        StoppedEarly: Ctrl-C or SIGTERM came before training began.
    """
    device = train_device(config)
    processes = config.local_processes(device)
    config.layout(processes)
    config = settle(config, progress)
    if config.parallel == "none":
        return train(config, progress=progress, trainer_class=SystemsTrainer)
    threads = threads_per_process(processes)
    return run_ranks(_train_as_rank, processes, config, progress, device=device, num_threads=threads, on_start=on_start)


def train_under_torchrun(config: ParallelTrainConfig, *, progress: bool = True) -> TrainResult:
    """Train as one of the processes that torchrun started, on one or several nodes that share a file system.

    Args:
        config: the settings, the same on every rank.
        progress: show a progress bar and messages, on rank 0.

    Returns:
        The run's result; the files it names were written by rank 0.

    Raises:
        UsageError: on every rank, if the data, device, folders, settings or checkpoint cannot be used.
    """
    device = train_device(config)
    with process_group(rank_device(device)):
        config.layout(dist.get_world_size())
        settled: list[ParallelTrainConfig | str] = [""]
        if dist.get_rank() == 0:
            try:
                settled = [settle(config, progress)]
            except UsageError as error:
                settled = [str(error)]
        dist.broadcast_object_list(settled, 0)
        if isinstance(settled[0], str):
            raise UsageError(settled[0])
        return _train_as_rank(settled[0], progress)
