"""AdamW with one kernel per parameter."""

from typing import Any

import torch
from torch import Tensor

from cs336_basics.trainer.AdamW import AdamW
from cs336_systems.triton_support import triton_runs_on


class FusedAdamW(AdamW):
    """`cs336_basics.trainer.AdamW` with the same arguments, state and state dict, so that checkpoints of one load into
    the other; it differs in how a CUDA tensor is updated.

    There the update is one Triton kernel per parameter, which reads parameter, gradient and moments once and writes
    parameter and moments once: 28 bytes per fp32 parameter, and no temporary tensor. AdamW's `torch._foreach`
    operations make about 13 passes and hold one more copy of the parameters. Elsewhere, and for tensors the kernel does
    not take (fp64, or not contiguous), the update is AdamW's own, which on a CPU goes block by block through the cache.
    """

    def _update_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        tensors = (parameter.data, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        if (
            triton_runs_on(parameter.device)
            and all(tensor.is_contiguous() for tensor in tensors)
            and state["exp_avg"].dtype == torch.float32
        ):
            from cs336_systems.fused.adamw_kernel import triton_adamw_

            settings = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
            triton_adamw_(*tensors, state["step"], **settings)
        else:
            super()._update_one(parameter, group)

    def _update_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            self._update_one(parameter, group)
