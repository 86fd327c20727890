"""Gradient clipping by the global L2 norm (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1)."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

# Added to the norm before dividing by it, as in the handout and in torch.
_EPSILON = 1e-6


def _gradients_by_device(parameters: Iterable[Tensor]) -> dict[torch.device, list[Tensor]]:
    gradients: dict[torch.device, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            gradients[parameter.grad.device].append(parameter.grad)
    return gradients


@torch.no_grad()
def global_gradient_norm(parameters: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The L2 norm of all gradients as if they were one vector; 0 if there are none.

    Args:
        parameters: those without a gradient are passed over; they may live on several devices.

    Returns:
        A scalar on the device of the first gradient, summed in fp32 (fp64 for fp64 gradients).
    """
    norms = [
        torch.linalg.vector_norm(gradient, dtype=torch.promote_types(gradient.dtype, torch.float32))
        for gradients in _gradients_by_device(parameters).values()
        for gradient in gradients
    ]
    if not norms:
        return torch.tensor(0.0)
    return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))


@torch.no_grad()
def clip_gradient(parameters: Iterable[Tensor], max_l2_norm: float) -> Float[Tensor, ""]:
    """Scale all gradients in place so that their global L2 norm is at most `max_l2_norm`.

    Args:
        parameters: those without a gradient are passed over; they may live on several devices.
        max_l2_norm: the largest norm allowed, above 0.

    Returns:
        The norm before clipping, a scalar.

    Raises:
        ValueError: `max_l2_norm` is not above 0.
    """
    parameters = list(parameters)
    norm = global_gradient_norm(parameters)
    scale_gradients(parameters, norm, max_l2_norm)
    return norm


@torch.no_grad()
def scale_gradients(parameters: Iterable[Tensor], norm: Float[Tensor, ""], max_l2_norm: float) -> None:
    """Scale all gradients in place by what brings a gradient of L2 norm `norm` down to `max_l2_norm`.

    Args:
        parameters: those without a gradient are passed over; they may live on several devices.
        norm: of the gradient that these are a part of, when others lie on other ranks.
        max_l2_norm: the largest norm allowed, above 0.

    Raises:
        ValueError: `max_l2_norm` is not above 0.
    """
    if not max_l2_norm > 0:
        raise ValueError(f"max_l2_norm must be above 0, got {max_l2_norm}")
    # Multiplying by a factor of at most 1, even if it is exactly 1, spares a GPU the wait for a comparison.
    factor = (max_l2_norm / (norm + _EPSILON)).clamp(max=1.0)
    for device, gradients in _gradients_by_device(parameters).items():
        if device.type == "cpu" and factor.device.type == "cpu" and factor == 1.0:
            continue
        torch._foreach_mul_(gradients, factor.to(device))
