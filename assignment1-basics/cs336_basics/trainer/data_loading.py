"""Batches of token windows from one long array of ids, usually a memory map larger than RAM."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cs336_basics.command_line import UsageError


def _windows(
    dataset: np.ndarray, starts: np.ndarray, context_length: int, device: str | torch.device
) -> tuple[Int[Tensor, "batch context"], Int[Tensor, "batch context"]]:
    """The inputs `dataset[s : s + context]` and the targets one place further, for each start `s`."""
    device = torch.empty(0, device=device).device  # an unusable device fails here, before any work
    # One row more than the context holds input and target together, so each token is read and sent once.
    windows = np.empty((len(starts), context_length + 1), dtype=np.int64)
    for row, start in zip(windows, starts, strict=True):
        row[:] = dataset[start : start + context_length + 1]
    batch = torch.from_numpy(windows)
    if device.type == "cuda":
        batch = batch.pin_memory()  # only a copy from pinned memory can overlap with computation
    batch = batch.to(device, non_blocking=device.type == "cuda")
    return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


def check_dataset(dataset: np.ndarray, context_length: int) -> None:
    """Raise UsageError unless the data set is a flat array of integers with room for one window and its targets."""
    if dataset.ndim != 1 or not np.issubdtype(dataset.dtype, np.integer):
        raise UsageError(f"the data set must be a flat array of integers, got shape {dataset.shape}, {dataset.dtype}")
    if len(dataset) <= context_length:
        raise UsageError(
            f"the data set holds {len(dataset)} tokens; "
            f"a context of {context_length} needs at least {context_length + 1}"
        )


def get_batch(
    dataset: Int[np.ndarray, " tokens"],
    batch_size: int,
    context_length: int,
    device: str | torch.device = "cpu",
    generator: np.random.Generator | None = None,
    rows: slice = slice(None),
) -> tuple[Int[Tensor, "rows context_length"], Int[Tensor, "rows context_length"]]:
    """Sample windows whose starts are uniform over 0 ... len(dataset) - context_length - 1.

    Args:
        dataset: token ids of any integer type, for example a uint16 memory map.
        batch_size: the number of windows.
        context_length: tokens per window.
        device: where the tensors go; for CUDA the copy is asynchronous from pinned memory.
        generator: the source of randomness; None takes torch's global one (`torch.manual_seed`).
        rows: the windows of the batch to return. All are drawn, so processes that share a batch draw the same one.

    Returns:
        (inputs, targets) of those rows, both int64; a target is the token after its input.

    Raises:
        UsageError: the data set is too short or not a flat integer array.
        RuntimeError, AssertionError: the device cannot be used (torch's own error).
    """
    check_dataset(dataset, context_length)
    num_starts = len(dataset) - context_length
    if generator is None:
        starts = torch.randint(num_starts, (batch_size,)).numpy()
    else:
        starts = generator.integers(num_starts, size=batch_size)
    return _windows(dataset, starts[rows], context_length, device)


def evenly_spaced_batches(
    dataset: Int[np.ndarray, " tokens"],
    batch_size: int,
    context_length: int,
    num_batches: int,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Int[Tensor, "batch context_length"], Int[Tensor, "batch context_length"]]]:
    """Windows that do not overlap, spread evenly over the data set: the same ones every time, for validation.

    Args:
        dataset, context_length, device: as for `get_batch`.
        batch_size: windows per batch (the last batch may hold fewer).
        num_batches: at most so many batches; a small data set gives fewer.

    Raises:
        UsageError: the data set is too short or not a flat integer array.
    """
    check_dataset(dataset, context_length)
    available = (len(dataset) - 1) // context_length
    count = min(available, batch_size * num_batches)
    starts = np.arange(count) * available // count * context_length
    for first in range(0, count, batch_size):
        yield _windows(dataset, starts[first : first + batch_size], context_length, device)
