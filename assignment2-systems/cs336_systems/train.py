"""Assignment 1's training program, spread over processes: `python scripts/train.py --help` lists every setting.

python scripts/train.py --parallel fsdp --processes 2              # processes of this machine
torchrun --nproc_per_node 8 scripts/train.py --parallel fsdp       # torchrun's, on one or several nodes
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs336_basics.check_pointing import checkpoints_newest_first
from cs336_basics.train import config_from_settings, tell
from cs336_basics.trainer.loop import TrainResult
from cs336_basics.training_config import build_parser
from cs336_basics.training_data import TRAIN_NAME, make_default_data
from cs336_systems.parallel_training.config import ParallelTrainConfig
from cs336_systems.parallel_training.local_ranks import RankFailure
from cs336_systems.parallel_training.run import train_locally, train_under_torchrun
from cs336_systems.process_group import started_by_torchrun

PROGRAM = "scripts/train.py"
SMOKE_FOLDER = Path("smoke")
SMOKE: dict[str, Any] = {
    "parallel": "ddp", "d_model": 64, "num_layers": 2, "num_heads": 4, "context_len": 64, "batch_size": 8,
    "train_steps": 20, "val_interval": 10, "val_batches": 2, "save_intervals": 10, "log_intervals": 5, "no_wandb": True,
    "data_dir": str(SMOKE_FOLDER / "data"), "tokenizer_dir": str(SMOKE_FOLDER / "tokenizer"),
    "run_dir": str(SMOKE_FOLDER / "run"), "save_ckp_path": str(SMOKE_FOLDER / "run"),
}  # fmt: skip
"""What `--smoke` sets where the command line does not say otherwise."""


def config_from_arguments(argv: Sequence[str] | None = None) -> ParallelTrainConfig:
    """The settings a command line asks for; with `--resume_ckp`, those it leaves out come from the checkpoint.

    Raises:
        UsageError: a setting is out of range, or the checkpoint cannot be resumed with these settings.
    """
    parser = build_parser(ParallelTrainConfig)
    parser.add_argument(
        "--smoke", action="store_true", default=False,
        help="a small run of a minute, in two processes, on text of its own in smoke/ (default: False)",
    )  # fmt: skip
    given = vars(parser.parse_args(argv))
    if given.pop("smoke"):
        given = {**SMOKE, **given}
        folder = Path(given["data_dir"])
        if not started_by_torchrun() and not (folder / TRAIN_NAME).exists():
            make_default_data(
                folder, Path(given["tokenizer_dir"]), vocab_size=500, train_bytes=200_000, valid_bytes=20_000
            )
    return config_from_settings(given, ParallelTrainConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """The program: train as `argv` says and print how it went.

    Raises:
        SystemExit: with code 1 if the run diverged or a process died, 130 if it was interrupted.
    """
    train_and_tell(config_from_arguments(argv))


def train_and_tell(config: ParallelTrainConfig, program: str = PROGRAM) -> TrainResult:
    """Train, in processes of this machine or as one of torchrun's, and print how it went.

    Args:
        config: the settings.
        program: the name by which messages call the program that goes on with a run.

    Returns:
        The result of a run that ended well; under torchrun only rank 0 comes back from here.

    Raises:
        SystemExit: with code 1 if the run diverged or a process died, 130 if it was interrupted.
    """
    if started_by_torchrun():
        result = train_under_torchrun(config)
        if torchrun_rank() != 0:  # rank 0 tells; the others only end alike
            raise SystemExit(1 if result.diverged else 130 if result.interrupted else 0)
    else:
        try:
            result = train_locally(config)
        except RankFailure as error:
            print(f"error: {error}\n{how_to_go_on(config, program)}", file=sys.stderr)
            raise SystemExit(1) from None
    tell(result, program)
    return result


def torchrun_rank() -> int:
    """This process's number among those that torchrun started."""
    return int(os.environ["RANK"])


def how_to_go_on(config: ParallelTrainConfig, program: str = PROGRAM) -> str:
    """One sentence on what is left of a run that was cut off."""
    if not checkpoints_newest_first(config.save_ckp_path):
        return f"the run has ended; there is no checkpoint in {config.save_ckp_path} yet"
    return (
        f"the run has ended; go on from its last checkpoint with: uv run python {program} --resume_ckp latest "
        f"--save_ckp_path {config.save_ckp_path}"
    )
