"""Train a Transformer language model: `python cs336_basics/train.py --help` lists every setting.

Importable as well: `train(TrainConfig(data_dir="data", train_steps=200))` returns a `TrainResult`.
"""

import sys
from collections.abc import Sequence
from typing import Any

if __name__ == "__main__":
    from cs336_basics.import_path import leave_package_folder

    leave_package_folder()

from cs336_basics.check_pointing import read_checkpoint, resolve_checkpoint
from cs336_basics.command_line import UsageError, run_command
from cs336_basics.trainer.loop import TrainResult, measure_step_seconds, train
from cs336_basics.training_config import ConfigClass, TrainConfig, build_parser, resumed_config

__all__ = ["TrainConfig", "TrainResult", "main", "measure_step_seconds", "train"]


def config_from_arguments(argv: Sequence[str] | None = None) -> TrainConfig:
    """The settings a command line asks for, as `config_from_settings` says.

    Raises:
        UsageError: a setting is out of range, or the checkpoint cannot be resumed with these settings.
    """
    return config_from_settings(vars(build_parser().parse_args(argv)))


def config_from_settings(given: dict[str, Any], config_class: type[ConfigClass] = TrainConfig) -> ConfigClass:
    """All settings, from some; with `resume_ckp`, those left out come from the checkpoint.

    Args:
        given: names and values.
        config_class: `TrainConfig`, or a dataclass that adds fields to it.

    Raises:
        UsageError: a setting is out of range, or the checkpoint cannot be resumed with these settings.
    """
    if "resume_ckp" not in given:
        return config_class(**given)
    folder = given.get("save_ckp_path", TrainConfig.save_ckp_path)
    path = resolve_checkpoint(given["resume_ckp"], folder, lambda sentence: print(sentence, file=sys.stderr))
    given = {**given, "resume_ckp": str(path)}
    checkpoint = read_checkpoint(given["resume_ckp"])
    if "train_config" not in checkpoint or "model_config" not in checkpoint:
        raise UsageError(
            f"{given['resume_ckp']} cannot be resumed: it has no train_config; give one this program wrote"
        )
    return resumed_config(checkpoint["train_config"], checkpoint["model_config"], given, config_class)


def main(argv: Sequence[str] | None = None) -> None:
    """The program: train as `argv` says and print how it went."""
    tell(train(config_from_arguments(argv)), "cs336_basics/train.py")


def tell(result: TrainResult, program: str) -> None:
    """Print how a run of `program` went.

    Raises:
        SystemExit: it did not end well: with code 1 if it diverged, 130 if it was interrupted.
    """
    if result.diverged:
        print(f"error: {result.message}", file=sys.stderr)
        raise SystemExit(1)
    if result.interrupted:
        print(f"{result.message}; go on with: uv run python {program} --resume_ckp {result.checkpoint_path}")
        raise SystemExit(130)
    if result.message:
        print(result.message)
    losses = ""
    if result.final_val_loss is not None:
        losses = f"validation loss {result.final_val_loss:.4f} (best {result.best_val_loss:.4f}), "
    print(
        f"{losses}{result.steps} steps, {result.tokens:,} tokens, {result.seconds / 60:.1f} minutes\n"
        f"checkpoint: {result.checkpoint_path}\nlog:        {result.metrics_path}\nreport:     {result.report_path}"
    )


if __name__ == "__main__":
    run_command(main)
