"""Checkpoints: one file that holds all a run needs to go on exactly where it was.

A checkpoint is a dictionary of tensors, numbers and strings, so `torch.load(..., weights_only=True)` reads it: opening
one never runs code from it. Keys: `model_state_dict`, `optimizer_state_dict`, `iteration` (optimizer steps done),
`model_config` (a dictionary, where the model has one) and whatever the caller adds.
"""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.model import BasicsTransformerLM, TransformerConfig

FINAL_NAME = "checkpoint_final.pt"


def checkpoint_name(iteration: int) -> str:
    """The file name of the checkpoint after `iteration` steps."""
    return f"checkpoint_{iteration}.pt"


def _plain(model: torch.nn.Module) -> torch.nn.Module:
    """The module inside `torch.compile`'s wrapper, whose state dict would carry a prefix on every name."""
    return getattr(model, "_orig_mod", model)


def save_checkpoint(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    iteration: int,
    out: str | os.PathLike | BinaryIO | IO[bytes],
    **extra: Any,
) -> None:
    """Write a checkpoint; a file given by its path appears whole or not at all.

    Args:
        model: its state dict is stored, and its `config.to_dict()` if it has one.
        optimizer: its state dict is stored.
        iteration: the number of optimizer steps done.
        out: a path, or a binary file open for writing.
        extra: further entries; only what `weights_only=True` reads back (tensors, numbers, strings, lists, dicts).
    """
    model = _plain(model)
    checkpoint = {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "iteration": iteration,
        **extra,
    }
    if isinstance(getattr(model, "config", None), TransformerConfig):
        checkpoint["model_config"] = model.config.to_dict()
    if isinstance(out, str | os.PathLike):
        with atomic_write(out) as file:
            torch.save(checkpoint, file)
    else:
        torch.save(checkpoint, out)


def read_checkpoint(
    src: str | os.PathLike | BinaryIO | IO[bytes], map_location: str | torch.device = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint's dictionary without running any code from it.

    Args:
        src: a path, or a binary file open for reading.
        map_location: where its tensors go.

    Raises:
        UsageError: the file is truncated, damaged, or no checkpoint.
        FileNotFoundError: there is no such file.
    """
    try:
        if isinstance(src, str | os.PathLike):
            _check_sums(src)
        checkpoint = torch.load(src, map_location=map_location, weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise UsageError(f"{src} is not a readable checkpoint: it is truncated, damaged or of another kind") from error
    if not isinstance(checkpoint, dict) or "model_state_dict" not in checkpoint:
        found = sorted(map(str, checkpoint))[:5] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise UsageError(f"{src} is not a checkpoint: it holds {found} instead of model_state_dict and its companions")
    return checkpoint


def _check_sums(path: str | os.PathLike) -> None:
    """Compare a checkpoint's content with the check sums in it, which `torch.load` does not look at.

    Raises:
        zipfile.BadZipFile: the file is truncated, damaged, or not in torch's (zip) form.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} is damaged")


def load_checkpoint(
    src: str | os.PathLike | BinaryIO | IO[bytes], model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Restore a model and its optimizer in place, and return the number of steps done.

    Args:
        src: a path, or a binary file open for reading.
        model, optimizer: built as they were when the checkpoint was saved; their devices may differ.

    Raises:
        UsageError: the file is truncated, damaged or no checkpoint.
        RuntimeError, ValueError: the model's or the optimizer's shape differs (torch's own errors name the entries).
    """
    checkpoint = read_checkpoint(src)
    _plain(model).load_state_dict(checkpoint["model_state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    return checkpoint["iteration"]


def checkpoints_newest_first(folder: str | os.PathLike) -> list[Path]:
    """The folder's checkpoints, the last one written first."""
    folder = Path(folder)
    names = re.compile(r"checkpoint_(\d+|final)\.pt")
    paths = [path for path in folder.glob("checkpoint_*.pt") if names.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def latest_good_checkpoint(folder: str | os.PathLike) -> tuple[Path, list[str]]:
    """The last checkpoint written to the folder that can be read.

    Returns:
        (its path, one sentence for each newer one that had to be passed over).

    Raises:
        UsageError: the folder holds no readable checkpoint.
    """
    passed_over = []
    for path in checkpoints_newest_first(folder):
        try:
            read_checkpoint(path)
        except UsageError as error:
            passed_over.append(str(error))
        else:
            return path, passed_over
    raise UsageError("; ".join([*passed_over, f"{folder} holds no readable checkpoint (checkpoint_STEP.pt)"]))


def resolve_checkpoint(name: str | os.PathLike, folder: str | os.PathLike, say: Callable[[str], None]) -> Path:
    """The path of the checkpoint to resume from.

    Args:
        name: its path, or "latest" for the last one in the folder that can be read.
        folder: where to look for the latest.
        say: is told of each newer checkpoint that had to be passed over.

    Raises:
        UsageError: the latest is asked for, and the folder holds no readable checkpoint.
    """
    if name != "latest":
        return Path(name)
    path, passed_over = latest_good_checkpoint(folder)
    for sentence in passed_over:
        say(f"{sentence}; going on from {path} instead")
    return path


def remove_unfinished_checkpoints(folder: str | os.PathLike) -> None:
    """Delete what a run that was killed while it wrote a checkpoint left in the folder."""
    for left_by_a_kill in Path(folder).glob(".checkpoint_*.pt.*.tmp"):
        left_by_a_kill.unlink(missing_ok=True)


def load_model(path: str | os.PathLike, device: str = "auto") -> BasicsTransformerLM:
    """Build the model a checkpoint describes, with its weights, in evaluation mode.

    Args:
        path: a checkpoint of the training program.
        device: as for `resolve_device`.

    Raises:
        UsageError: the file is no checkpoint, or one without a `model_config`.
    """
    checkpoint = read_checkpoint(path)
    if "model_config" not in checkpoint:
        raise UsageError(f"{path} does not say which model it holds (no model_config); build the model and load it")
    model = BasicsTransformerLM.from_config(TransformerConfig.from_dict(checkpoint["model_config"]))
    model.load_state_dict(checkpoint["model_state_dict"])
    return model.to(resolve_device(device)).eval()
