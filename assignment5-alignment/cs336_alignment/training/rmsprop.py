"""RMSprop: steps scaled by a running mean of squared gradients (Tieleman & Hinton 2012, Coursera lecture 6.5).

    v <- alpha v + (1 - alpha) g^2
    p <- p - lr g / (sqrt(v) + eps)

It keeps one moment where Adam keeps two, which is why it is the usual choice for DPO.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.trainer.optimizer_base import OptimizerBase


class RMSprop(OptimizerBase):
    """The optimizer of the module's formulas; equal to `torch.optim.RMSprop` without momentum, up to rounding.

    The mean of squares is fp32 even when parameters are bf16 or fp16: such a parameter is updated in fp32 and rounded
    once, so updates below its rounding step are lost.

    Args:
        params: tensors, or parameter groups as dictionaries with "params" and any of the settings below.
        lr: learning rate, at least 0.
        alpha: decay rate of the mean of squares, in [0, 1).
        eps: added to the denominator, at least 0.

    Raises:
        UsageError: a setting is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps)):
            if not 0 <= value < math.inf:
                raise UsageError(f"RMSprop: {name} must be a finite number of at least 0, got {value}")
        if not 0 <= alpha < 1:
            raise UsageError(f"RMSprop: alpha must be in [0, 1), got {alpha}")
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    def _update_group(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        wide, state = torch.promote_types(parameter.dtype, torch.float32), self.state[parameter]
        if not state:
            state["square_avg"] = torch.zeros_like(parameter, dtype=wide)
        gradient, mean_square = parameter.grad.to(wide), state["square_avg"]
        mean_square.mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
        value = parameter.to(wide)  # the parameter itself where it is wide already
        value.addcdiv_(gradient, mean_square.sqrt().add_(group["eps"]), value=-group["lr"])
        if value is not parameter:
            parameter.copy_(value)
