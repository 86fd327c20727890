"""Checkpoints of a sharded model and its optimizer, in one file or in one file per rank.

One file (`save_full`) has the form of `cs336_basics.check_pointing`: whatever reads checkpoints of a single process
reads it. For that the first rank holds the whole model, and its optimizer's state, in main memory once.

One file per rank (`save_sharded`) needs no more memory than training. A folder holds `index.json`, which names the
files of the last complete checkpoint, and these files. The index is replaced in one step after all files are there, so
a run that is killed while it saves leaves the checkpoint before it. Either kind can be resumed on any number of ranks.
"""

import json
import os
import pickle
import secrets
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cs336_basics.atomic_file import atomic_write
from cs336_basics.check_pointing import read_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.model import TransformerConfig
from cs336_systems.fsdp.optimizer_state import (
    divided_by_rows,
    full_optimizer_state,
    load_full_optimizer_state,
    parameters_of,
)
from cs336_systems.fsdp.wrapper import FSDP

INDEX = "index.json"


def save_full(
    path: str | os.PathLike, model: FSDP, optimizer: torch.optim.Optimizer, iteration: int, **extra: Any
) -> None:
    """Write one checkpoint file, as `cs336_basics.check_pointing.save_checkpoint` does for one process.

    All ranks call it; the first one writes, and none returns before the file is there.

    Args:
        path: the file.
        model, optimizer: what to save.
        iteration: the number of optimizer steps done.
        extra: further entries; only what `torch.load(weights_only=True)` reads back. Those of the first rank count.
    """
    writes = model.rank == 0
    state: dict[str, Tensor] = {}
    for name, value in model.full_state():
        if writes:
            state[name] = value.cpu()
    optimizer_state = full_optimizer_state(model, optimizer, keep=writes)
    if writes:
        checkpoint = {"model_state_dict": state, "optimizer_state_dict": optimizer_state, "iteration": iteration}
        with atomic_write(path) as file:
            torch.save(checkpoint | _model_config(model) | extra, file)
    dist.barrier(model.process_group)


def load_full(path: str | os.PathLike, model: FSDP, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore model and optimizer from a file of `save_full`, or from a single process's checkpoint.

    Args:
        path: the file, readable by every rank.
        model, optimizer: built as they were when it was saved; the number of ranks may differ.

    Returns:
        The other entries of the checkpoint: `iteration`, the model's configuration, and what was given as `extra`.

    Raises:
        UsageError: the file is damaged or no checkpoint, or belongs to another model.
    """
    checkpoint = read_checkpoint(path)
    model.load_full_state(checkpoint.pop("model_state_dict"))
    load_full_optimizer_state(model, optimizer, checkpoint.pop("optimizer_state_dict"))
    return checkpoint


def save_sharded(
    folder: str | os.PathLike, model: FSDP, optimizer: torch.optim.Optimizer, iteration: int, **extra: Any
) -> None:
    """Write each rank's part to a file of its own, then an index; all ranks call it.

    Args:
        folder: holds one checkpoint, seen by all ranks; an earlier one in it is replaced.
        model, optimizer: what to save.
        iteration: the number of optimizer steps done.
        extra: further entries; only what `torch.load(weights_only=True)` reads back. Each rank may have its own.
    """
    folder = Path(folder)
    # Never the names of the checkpoint before, even if that was made after as many steps: it is valid until the end.
    token = [secrets.token_hex(4)]
    dist.broadcast_object_list(token, group=model.process_group, group_src=0)
    files = [f"part_{token[0]}_{rank}_of_{model.world_size}.pt" for rank in range(model.world_size)]
    part = {
        "model_state_dict": model.module.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "extra": extra,
    }
    with atomic_write(folder / files[model.rank]) as file:
        torch.save(part, file)
    dist.barrier(model.process_group)
    if model.rank == 0:
        with atomic_write(folder / INDEX, "w") as file:
            json.dump({"iteration": iteration, "files": files} | _model_config(model), file, indent=1)
        # What earlier saves left, those that were killed included.
        for path in [*folder.glob("part_*_*_of_*.pt"), *folder.glob(".part_*.tmp")]:
            if path.name not in files:
                path.unlink()
    dist.barrier(model.process_group)


def load_sharded(folder: str | os.PathLike, model: FSDP, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore model and optimizer from a folder of `save_sharded`.

    Each rank reads its own rows only, from whichever files hold them.

    Args:
        folder: as for `save_sharded`.
        model, optimizer: built as they were when it was saved; the number of ranks may differ.

    Returns:
        `iteration`, and the `extra` of this rank; of the first one, if this rank had no part in saving.

    Raises:
        UsageError: there is no complete checkpoint, or it belongs to another model.
    """
    index, parts = _read_parts(Path(folder))
    _load_model_rows(model, [part["model_state_dict"] for part in parts])
    _load_optimizer_rows(model, optimizer, [part["optimizer_state_dict"] for part in parts])
    own = parts[model.rank if model.rank < len(parts) else 0]
    return {"iteration": index["iteration"], **own["extra"]}


def _model_config(model: FSDP) -> dict[str, Any]:
    config = getattr(model.module, "config", None)
    return {"model_config": config.to_dict()} if isinstance(config, TransformerConfig) else {}


def _read_parts(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The index and the content of its files, of which only what is used is read from the disk."""
    if not (folder / INDEX).is_file():
        raise UsageError(f"{folder} holds no complete sharded checkpoint: there is no {INDEX}")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        parts = [torch.load(folder / name, map_location="cpu", weights_only=True, mmap=True) for name in index["files"]]
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"{folder} holds no readable sharded checkpoint: a file is missing, truncated or damaged"
        ) from error
    return index, parts


def _rows(parts: list[Tensor], wanted: slice) -> Tensor:
    """A copy of some rows of the matrix that the parts form one below the other."""
    start = 0
    pieces = []
    for part in parts:
        pieces.append(part[max(wanted.start - start, 0) : max(wanted.stop - start, 0)])
        start += len(part)
    return torch.cat(pieces)


@torch.no_grad()
def _load_model_rows(model: FSDP, parts: list[dict[str, Tensor]]) -> None:
    own = model.module.state_dict(keep_vars=True)
    if differing := sorted(own.keys() ^ parts[0].keys()):
        raise UsageError(f"the saved model and this one differ in {', '.join(differing)}")
    for name, value in own.items():
        weight = model.sharded.get(value)
        saved = [part[name] for part in parts]
        found = saved[0].shape if weight is None else (sum(map(len, saved)), *saved[0].shape[1:])
        shape = value.shape if weight is None else weight.shape
        if tuple(found) != tuple(shape):
            raise UsageError(f"the saved {name} has the shape {tuple(found)}; this model's is {tuple(shape)}")
        value.copy_(saved[0] if weight is None else _rows(saved, weight.rows))


def _load_optimizer_rows(model: FSDP, optimizer: torch.optim.Optimizer, parts: list[dict[str, Any]]) -> None:
    saved = [number for group in parts[0]["param_groups"] for number in group["params"]]
    parameters = parameters_of(optimizer)
    if len(saved) != len(parameters):
        raise UsageError(f"the saved optimizer has {len(saved)} parameters; this one has {len(parameters)}")
    state: dict[int, dict[str, Any]] = {}
    for number, parameter in zip(saved, parameters, strict=True):
        weight = model.sharded.get(parameter)
        for name, value in parts[0]["state"].get(number, {}).items():
            divided = divided_by_rows(value, weight)
            own = _rows([part["state"][number][name] for part in parts], weight.rows) if divided else value
            state.setdefault(number, {})[name] = own
    optimizer.load_state_dict({"state": state, "param_groups": parts[0]["param_groups"]})
