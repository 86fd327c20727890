"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).

With gradient g at step t (counted from 1), learning rate a, decay w and moments m, v that start at 0:

    p <- p - a * w * p                            the decay, apart from the gradient's moments
    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    p <- p - a * m_hat / (sqrt(v_hat) + eps)      m_hat = m / (1 - beta1^t),  v_hat = v / (1 - beta2^t)

The CS336 handout folds both corrections into the step size, which scales `eps`, and decays last; either changes a step
by far less than the noise of training. The order above is the paper's and torch's. The code multiplies numerator and
denominator of the last line by sqrt(1 - beta2^t), which spares a pass over the denominator.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.trainer.optimizer_base import OptimizerBase

# Elements updated at once on the CPU. Parameter, gradient, both moments and the scratch buffer of one block (5 MB)
# stay in the cache through the seven passes of an update; a whole matrix would go to main memory for each pass.
_CPU_BLOCK = 2**18


class AdamW(OptimizerBase):
    """The optimizer of the module's formulas; equal to `torch.optim.AdamW` up to rounding.

    Moments are fp32 (fp64 for fp64 parameters) even when parameters are bf16 or fp16: such a parameter is updated in
    fp32 and rounded once. There is no fp32 copy of it, so updates below its rounding step are lost; train with fp32
    parameters under autocast where that matters, as the training program does.

    Args:
        params: tensors, or parameter groups as dictionaries with "params" and any of the settings below.
        lr: learning rate, at least 0.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: decoupled decay rate, at least 0; a step multiplies a parameter by 1 - lr * weight_decay.

    Raises:
        UsageError: a setting is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group with settings of its own; those it leaves out are the defaults.

        Raises:
            UsageError: a setting is out of its range.
        """
        settings = {**self.defaults, **param_group}
        for name in ("lr", "eps", "weight_decay"):
            if not 0 <= settings[name] < math.inf:
                raise UsageError(f"AdamW: {name} must be a finite number of at least 0, got {settings[name]}")
        betas = settings["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise UsageError(f"AdamW: betas must be two numbers in [0, 1), got {betas}")
        super().add_param_group(param_group)

    def _update_group(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update the parameters of one group.

        Raises:
            RuntimeError: a gradient is sparse.
        """
        if any(parameter.grad.is_sparse for parameter in parameters):
            raise RuntimeError("AdamW does not support sparse gradients; use a dense embedding")
        for parameter in parameters:
            self._advance(parameter)
        on_gpu = [p for p in parameters if p.device.type == "cuda" and p.dtype == torch.float32 == p.grad.dtype]
        self._update_together(on_gpu, group)
        together = set(map(id, on_gpu))
        for parameter in parameters:
            if id(parameter) not in together:
                self._update_one(parameter, group)

    def _advance(self, parameter: Tensor) -> None:
        """Count a step; the first one makes the moments."""
        state = self.state[parameter]
        if not state:
            wide = torch.promote_types(parameter.dtype, torch.float32)
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, dtype=wide, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=wide, memory_format=torch.preserve_format)
        state["step"] += 1

    def _update_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        tensors = (parameter.data, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        if parameter.device.type == "cpu" and all(tensor.is_contiguous() for tensor in tensors):
            blocks = zip(*(tensor.view(-1).split(_CPU_BLOCK) for tensor in tensors), strict=True)
        else:
            blocks = iter([tensors])
        scratch = torch.empty(0, dtype=state["exp_avg"].dtype, device=parameter.device)
        for block in blocks:
            _update_block(*block, scratch, state["step"], group)

    def _update_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """The same update for many CUDA tensors with a handful of kernel launches."""
        by_step: dict[tuple[torch.device, int], list[Tensor]] = {}
        for parameter in parameters:
            by_step.setdefault((parameter.device, self.state[parameter]["step"]), []).append(parameter)
        (beta1, beta2), lr = group["betas"], group["lr"]
        for (_, step), same in by_step.items():
            gradients = [parameter.grad for parameter in same]
            first = [self.state[parameter]["exp_avg"] for parameter in same]
            second = [self.state[parameter]["exp_avg_sq"] for parameter in same]
            torch._foreach_mul_(same, 1 - lr * group["weight_decay"])
            torch._foreach_lerp_(first, gradients, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
            correction = math.sqrt(1 - beta2**step)
            denominator = torch._foreach_sqrt(second)
            torch._foreach_add_(denominator, group["eps"] * correction)
            torch._foreach_addcdiv_(same, first, denominator, -lr * correction / (1 - beta1**step))


def _update_block(
    parameter: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    scratch: Tensor,
    step: int,
    group: dict[str, Any],
) -> None:
    """One AdamW step on tensors of one shape, in place; `scratch` is grown to that shape and overwritten."""
    (beta1, beta2), lr = group["betas"], group["lr"]
    wide = first_moment.dtype
    gradient = gradient.to(wide)
    value = parameter if parameter.dtype == wide else parameter.to(wide)
    value.mul_(1 - lr * group["weight_decay"])
    first_moment.lerp_(gradient, 1 - beta1)
    second_moment.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    correction = math.sqrt(1 - beta2**step)
    denominator = torch.sqrt(second_moment, out=scratch.resize_(second_moment.shape))
    denominator.add_(group["eps"] * correction)
    value.addcdiv_(first_moment, denominator, value=-lr * correction / (1 - beta1**step))
    if value is not parameter:
        parameter.copy_(value)
