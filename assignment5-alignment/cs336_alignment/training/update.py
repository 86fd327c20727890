"""One optimizer update from microbatches, equal to the update from the whole batch.

The gradient of a sum is the sum of gradients. So each microbatch's loss must be its share of the batch's loss: divided
by what counts in the whole batch (examples, response tokens, a constant), not by what counts in the microbatch. A mean
over the tokens of each microbatch, averaged over microbatches, would be another loss wherever lengths differ.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from cs336_alignment.training.replica import Replica
from cs336_basics.trainer.trainer import DivergenceError

Microbatch = TypeVar("Microbatch")
Metrics = dict[str, Tensor | float]


@dataclass(frozen=True)
class UpdateOutcome:
    """What one update gave.

    Attributes:
        loss: of the whole batch.
        gradient_norm: global L2 norm before clipping.
        metrics: the sums over microbatches of what their losses reported.
    """

    loss: float
    gradient_norm: float
    metrics: dict[str, float]


def autocast_to(name: str, device: torch.device) -> torch.autocast:
    """The context in which matrix products have the type `name`; "none" leaves them in the weights' type."""
    return torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16")


def update(
    replica: Replica,
    microbatches: Sequence[Microbatch],
    loss_share: Callable[[Microbatch], tuple[Float[Tensor, ""], Metrics]],
    *,
    lr: float,
    max_grad_norm: float,
    autocast: str = "none",
) -> UpdateOutcome:
    """Add up the gradients of all microbatches, clip, and take one optimizer step.

    Args:
        replica: what is trained.
        microbatches: the parts of this process's share of the batch; every process has as many.
        loss_share: a microbatch's share of the loss of the whole batch (of all processes), and its share of metrics,
            likewise to be added up. Called under autocast.
        lr: learning rate of this update.
        max_grad_norm: for clipping; 0 for none.
        autocast: "none" or "bfloat16".

    Raises:
        DivergenceError: the loss or the gradient is NaN or infinite; the weights are as before.
    """
    total = torch.zeros((), device=replica.device, dtype=torch.float64 if replica.device.type == "cpu" else None)
    sums: dict[str, Tensor | float] = {}
    for index, microbatch in enumerate(microbatches):
        with replica.microbatch(is_last=index == len(microbatches) - 1):
            with autocast_to(autocast, replica.device):
                loss, metrics = loss_share(microbatch)
            loss.backward()
        total += loss.detach()
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + (value.detach() if isinstance(value, Tensor) else value)
    replica.finish_gradients()
    norm = replica.clip_gradient(max_grad_norm)
    names = list(sums)
    values = torch.stack([torch.as_tensor(sums[name], device=total.device).to(total.dtype) for name in names] + [total])
    *shares, loss_value = replica.sum_over_processes(values).tolist()
    norm_value = norm.item()
    for name, value in (("loss", loss_value), ("gradient norm", norm_value)):
        if not math.isfinite(value):
            replica.optimizer.zero_grad(set_to_none=True)
            raise DivergenceError(f"the {name} became {value} at learning rate {lr:.3g}")
    for group in replica.optimizer.param_groups:
        group["lr"] = lr
    replica.optimizer.step()
    replica.optimizer.zero_grad(set_to_none=True)
    return UpdateOutcome(loss_value, norm_value, dict(zip(names, shares, strict=True)))
