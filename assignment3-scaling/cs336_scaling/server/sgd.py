"""Stochastic gradient descent with heavy-ball momentum, the other optimizer of the 2026 edition.

With gradient g, learning rate a, decay w, momentum m and a velocity v that starts at 0 (Polyak 1964, in the form of
Sutskever et al. 2013, equations 1 and 2, with the learning rate outside of the velocity):

    v <- m * v + g + w * p
    p <- p - a * v
"""

from collections.abc import Callable
from typing import Any

import torch


class SGD(torch.optim.Optimizer):
    """The optimizer of the module's formulas; equal to `torch.optim.SGD` up to rounding.

    Args:
        groups: parameter groups as dictionaries with "params" and "weight_decay", a rate of at least 0.
        lr: learning rate, at least 0.
        momentum: share of the velocity that a step keeps, in [0, 1).
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: recomputes the loss and the gradients, and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                direction = parameter.grad + group["weight_decay"] * parameter
                if group["momentum"]:
                    state = self.state[parameter]
                    if not state:
                        state["velocity"] = torch.zeros_like(parameter)
                    direction = state["velocity"].mul_(group["momentum"]).add_(direction)
                parameter.sub_(group["lr"] * direction)
        return loss
