"""Batches of a data set, for one epoch."""

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cs336_basics.command_line import UsageError


def iterate_batches(
    dataset: Dataset[dict[str, Tensor]], batch_size: int, shuffle: bool
) -> DataLoader[dict[str, Tensor]]:
    """One epoch over a data set, as batches of its items stacked; the last one may be smaller.

    Args:
        dataset: items are dictionaries of tensors of equal shapes.
        batch_size: items of a batch.
        shuffle: in a random order, drawn anew from torch's global generator for each pass.

    Returns:
        An iterable over the batches; its length is their number.

    Raises:
        UsageError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; allowed is any whole number of at least 1")
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)
