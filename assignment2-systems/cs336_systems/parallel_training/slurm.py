"""The training program as a Slurm job through submitit: one task for each process, requeued when it is preempted."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import submitit

from cs336_basics.check_pointing import checkpoints_newest_first
from cs336_basics.command_line import UsageError
from cs336_basics.train import tell
from cs336_basics.trainer.loop import TrainResult
from cs336_systems.parallel_training.run import train_device, train_under_torchrun
from cs336_systems.train import PROGRAM, config_from_arguments

PREEMPTION_SIGNAL = signal.SIGUSR2
"""What submitit asks Slurm to send some time before the end, or when the job has to give way."""


class _Preemption:
    """Turns the preemption signal into a request to stop after the current step."""

    def __init__(self) -> None:
        self.requested = False
        self.requeue: Any = signal.signal(PREEMPTION_SIGNAL, self._ask)  # submitit's own handler, for later

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.raise_signal(signal.SIGTERM)  # the trainer hears that one


class TrainJob(submitit.helpers.Checkpointable):
    """One task of the job: a rank of the run. Slurm starts `nodes` times `tasks_per_node` of them.

    Args:
        arguments: the training program's command line.
        is_requeued: whether the job has run before.
    """

    def __init__(self, arguments: Sequence[str], is_requeued: bool = False) -> None:
        self.arguments = list(arguments)
        self.is_requeued = is_requeued

    def __call__(self) -> TrainResult:
        """Train; from the last checkpoint if the job has run before and left one.

        Asked to give way, it saves a checkpoint after the current step and lets submitit queue it again.
        """
        preemption = _Preemption()
        # Every task sees all GPUs of its node and takes the one of its own number.
        environment = submitit.helpers.TorchDistributedEnvironment()
        environment.export(set_cuda_visible_devices=False, overwrite=True)
        config = config_from_arguments(self._arguments_now())
        result = train_under_torchrun(config)
        if result.interrupted and preemption.requested:
            if environment.rank == 0:
                preemption.requeue(PREEMPTION_SIGNAL, None)  # leaves by SystemExit
            sys.exit(1)
        return result

    def _arguments_now(self) -> list[str]:
        has_run = self.is_requeued or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        if has_run and checkpoints_newest_first(config_from_arguments(self.arguments).save_ckp_path):
            return [*self.arguments, "--resume_ckp", "latest"]
        return self.arguments

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues again."""
        return submitit.helpers.DelayedSubmission(TrainJob(self.arguments, is_requeued=True))


def build_parser() -> argparse.ArgumentParser:
    """The launcher's own flags."""
    parser = argparse.ArgumentParser(
        prog="launch_slurm.py",
        description="Submit scripts/train.py as a Slurm job. All other flags are the training program's "
        "(scripts/train.py --help).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--partition", help="Slurm partition; Slurm's default if left out")
    parser.add_argument("--account", help="Slurm account to charge")
    parser.add_argument("--qos", help="Slurm quality of service")
    parser.add_argument("--constraint", help="features that nodes must have")
    parser.add_argument("--nodes", type=int, default=1, help="nodes")
    parser.add_argument("--gpus_per_node", type=int, default=0, help="GPUs on each node; 0 trains on CPUs")
    parser.add_argument("--tasks_per_node", type=int, help="processes on each node; one per GPU, or 1, if left out")
    parser.add_argument("--cpus_per_task", type=int, default=4, help="CPU cores for each process")
    parser.add_argument("--mem_gb", type=int, help="memory of a node, in GB; Slurm's default if left out")
    parser.add_argument("--minutes", type=int, default=60, help="time limit of one turn of the job, in minutes")
    parser.add_argument("--signal_delay_s", type=int, default=120, help="seconds before it to save and queue again")
    parser.add_argument("--max_requeues", type=int, default=20, help="how often the job may use up its time limit")
    parser.add_argument("--job_name", default="cs336", help="name of the job")
    parser.add_argument("--log_dir", type=Path, default=Path("slurm"), help="folder for the job's output and state")
    parser.add_argument("--local", action="store_true", help="run the job on this machine instead, without Slurm")
    parser.add_argument("--wait", action="store_true", help="wait for the end (--local always does)")
    return parser


def make_executor(given: argparse.Namespace) -> submitit.AutoExecutor:
    """submitit's executor for the flags.

    Raises:
        UsageError: there is no Slurm here, or a number is out of range.
    """
    for name in ("nodes", "tasks_per_node", "cpus_per_task", "minutes", "signal_delay_s"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; allowed is any whole number of at least 1")
    if given.signal_delay_s >= 60 * given.minutes:
        raise UsageError(f"signal_delay_s is {given.signal_delay_s}; allowed is less than {60 * given.minutes} seconds")
    cluster = "local" if given.local else "slurm"
    if given.local and given.nodes > 1:
        raise UsageError(f"nodes is {given.nodes}; allowed with --local is 1")
    limit = {"local_max_num_timeout" if given.local else "slurm_max_num_timeout": given.max_requeues}
    try:
        executor = submitit.AutoExecutor(given.log_dir, cluster=cluster, **limit)
    except RuntimeError as error:
        raise UsageError(f"there is no Slurm here ({error}); give --local to run on this machine") from None
    slurm = {
        f"slurm_{name}": value
        for name in ("partition", "account", "qos", "constraint")
        if (value := getattr(given, name)) is not None
    }
    executor.update_parameters(
        name=given.job_name,
        nodes=given.nodes,
        gpus_per_node=given.gpus_per_node,
        tasks_per_node=given.tasks_per_node or max(1, given.gpus_per_node),
        cpus_per_task=given.cpus_per_task,
        timeout_min=given.minutes,
        slurm_signal_delay_s=given.signal_delay_s,
        **({} if given.mem_gb is None else {"mem_gb": given.mem_gb}),
        **slurm,
    )
    return executor


def submit(given: argparse.Namespace, training: Sequence[str]) -> submitit.Job[TrainResult]:
    """Submit the job, after checking here all that can be checked here.

    Args:
        given: the launcher's flags.
        training: the training program's command line.

    Raises:
        UsageError: a flag of the launcher or of the training program is wrong.
    """
    executor = make_executor(given)
    config = config_from_arguments(training)
    if given.gpus_per_node == 0:  # otherwise this machine need not be like the nodes
        train_device(config)
    config.layout(given.nodes * (given.tasks_per_node or max(1, given.gpus_per_node)))
    return executor.submit(TrainJob(training))


def main(argv: Sequence[str] | None = None) -> None:
    """The program: submit, and tell where the output goes; with `--local` or `--wait`, also how the run went.

    Raises:
        SystemExit: with code 1 if the job failed, else as `scripts/train.py`.
    """
    given, training = build_parser().parse_known_args(argv)
    job = submit(given, training)
    print(f"job {job.job_id}: output in {job.paths.stdout}, errors in {job.paths.stderr}", flush=True)
    if not (given.local or given.wait):
        return
    try:
        results = job.results()
    except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as error:
        print(f"error: the job failed: {str(error).strip().splitlines()[-1]}; see {job.paths.stderr}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        job.cancel()
        raise
    tell(results[0], PROGRAM)
