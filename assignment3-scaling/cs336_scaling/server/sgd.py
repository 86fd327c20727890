"""Stochastic gradient descent with heavy-ball momentum, the other optimizer of the 2026 edition.

With gradient g, learning rate a, decay w, momentum m and a velocity v that starts at 0 (Polyak 1964, in the form of
Sutskever et al. 2013, equations 1 and 2, with the learning rate outside of the velocity):

    v <- m * v + g + w * p
    p <- p - a * v
"""

from typing import Any

import torch
from torch import Tensor

from cs336_basics.trainer.optimizer_base import OptimizerBase


class SGD(OptimizerBase):
    """The optimizer of the module's formulas; equal to `torch.optim.SGD` up to rounding.

    Args:
        groups: parameter groups as dictionaries with "params" and "weight_decay", a rate of at least 0.
        lr: learning rate, at least 0.
        momentum: share of the velocity that a step keeps, in [0, 1).
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    def _update_group(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            direction = parameter.grad + group["weight_decay"] * parameter
            if group["momentum"]:
                state = self.state[parameter]
                if not state:
                    state["velocity"] = torch.zeros_like(parameter)
                direction = state["velocity"].mul_(group["momentum"]).add_(direction)
            parameter.sub_(group["lr"] * direction)
