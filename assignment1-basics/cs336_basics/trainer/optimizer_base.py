"""What every optimizer written here does alike: going through the parameters, and restoring its state."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class OptimizerBase(torch.optim.Optimizer, ABC):
    """An optimizer that a subclass completes by its formula; arguments as for `torch.optim.Optimizer`."""

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
            self._update_group([parameter for parameter in group["params"] if parameter.grad is not None], group)
        return loss

    @abstractmethod
    def _update_group(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update the parameters of one group that have a gradient, by the group's settings."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore settings and moments, moving them to the parameters' devices.

        torch's own version would cast the moments of bf16 parameters to bf16; they keep their type here.
        """
        super().load_state_dict(state_dict)
        saved = (index for group in state_dict["param_groups"] for index in group["params"])
        for group in self.param_groups:
            for parameter, index in zip(group["params"], saved, strict=False):
                for name, value in state_dict["state"].get(index, {}).items():
                    if isinstance(value, Tensor) and value.dtype != self.state[parameter][name].dtype:
                        self.state[parameter][name] = value.to(device=parameter.device, copy=True)
