"""Sums and means over the elements that a mask selects."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cs336_basics.command_line import UsageError


def _selected(tensor: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The tensor with 0 wherever the mask is False, and the mask, of the tensor's shape.

    Multiplying by the mask would turn an unselected NaN or infinity into a NaN of the sum; choosing does not.
    """
    try:
        mask = mask.bool().expand_as(tensor)
    except RuntimeError:
        raise UsageError(
            f"a mask of shape {tuple(mask.shape)} does not fit a tensor of shape {tuple(tensor.shape)}; "
            "allowed is any shape that broadcasts to the tensor's"
        ) from None
    return torch.where(mask, tensor, 0), mask


def masked_mean(
    tensor: Float[Tensor, "..."], mask: Bool[Tensor, "..."], dim: int | None = None
) -> Float[Tensor, "..."]:
    """The mean of the elements where `mask` is True.

    Args:
        tensor: any shape.
        mask: of a shape that broadcasts to the tensor's; numbers count as True unless they are 0.
        dim: the dimension to average over; None averages over all.

    Returns:
        The tensor's shape without `dim`, or a scalar. Where the mask selects nothing, the mean is NaN.

    Raises:
        UsageError: the mask does not fit.
    """
    values, mask = _selected(tensor, mask)
    if dim is None:
        return values.sum() / mask.sum()
    return values.sum(dim) / mask.sum(dim)


def masked_normalize(
    tensor: Float[Tensor, "..."],
    mask: Bool[Tensor, "..."],
    dim: int | None = None,
    normalize_constant: float = 1.0,
) -> Float[Tensor, "..."]:
    """The sum of the elements where `mask` is True, divided by a constant.

    Args:
        tensor: any shape.
        mask: of a shape that broadcasts to the tensor's; numbers count as True unless they are 0.
        dim: the dimension to sum over; None sums over all.
        normalize_constant: the divisor.

    Returns:
        The tensor's shape without `dim`, or a scalar. Where the mask selects nothing, the sum is 0.

    Raises:
        UsageError: the mask does not fit.
    """
    values, _ = _selected(tensor, mask)
    return (values.sum() if dim is None else values.sum(dim)) / normalize_constant
