"""Checkpoints of a sharded model and its optimizer (signatures)."""

import os
from typing import Any

import torch

from cs336_systems.fsdp.wrapper import FSDP


def save_sharded(
    folder: str | os.PathLike, model: FSDP, optimizer: torch.optim.Optimizer, iteration: int, **extra: Any
) -> None:
    """Write one file per rank and an index."""
    raise NotImplementedError


def load_sharded(folder: str | os.PathLike, model: FSDP, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore; returns `{"iteration": …, **extra}`."""
    raise NotImplementedError


def save_full(
    path: str | os.PathLike, model: FSDP, optimizer: torch.optim.Optimizer, iteration: int, **extra: Any
) -> None:
    """Write one file in the form of `cs336_basics.check_pointing.save_checkpoint`."""
    raise NotImplementedError


def load_full(path: str | os.PathLike, model: FSDP, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore from one file, on any number of ranks; returns `{"iteration": …, **extra}`."""
    raise NotImplementedError
