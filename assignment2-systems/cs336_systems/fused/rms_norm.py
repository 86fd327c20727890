"""RMSNorm in one pass over memory each way."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cs336_basics.model import RMSNorm
from cs336_basics.model.functional import rms_norm as plain_rms_norm
from cs336_basics.model.fused import fused_rms_norm
from cs336_systems.triton_support import triton_runs_on

LARGEST_WIDTH = 16_384
"""The widest rows for the kernels, which hold a whole row in a program's registers."""


class _TritonRMSNorm(torch.autograd.Function):
    """Saves x, the weight and one number per row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        from cs336_systems.fused.rms_norm_kernel import triton_rms_norm

        rows = x.reshape(-1, x.shape[-1]).contiguous()
        y, inverse_rms = triton_rms_norm(rows, weight.contiguous(), eps)
        ctx.save_for_backward(rows, weight, inverse_rms)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        from cs336_systems.fused.rms_norm_kernel import triton_rms_norm_backward

        rows, weight, inverse_rms = ctx.saved_tensors
        grad_rows = grad.reshape(rows.shape).contiguous()
        grad_x, grad_weight = triton_rms_norm_backward(rows, weight.contiguous(), inverse_rms, grad_rows)
        return grad_x.view(grad.shape), grad_weight, None


def rms_norm(
    x: Float[Tensor, "... d_model"], weight: Float[Tensor, " d_model"], eps: float
) -> Float[Tensor, "... d_model"]:
    """x / sqrt(mean(x²) + eps) · weight in fp32, returned in x's type: by Triton's kernels on CUDA devices, by
    `cs336_basics.model.fused.fused_rms_norm` elsewhere, for fp64, and for rows wider than 16,384."""
    for_kernels = x.dtype != torch.float64 and x.shape[-1] <= LARGEST_WIDTH and x.numel()
    if for_kernels and triton_runs_on(x.device):
        return _TritonRMSNorm.apply(x, weight, eps)
    return fused_rms_norm(x, weight, eps)


class FusedRMSNorm(RMSNorm):
    """The model's RMSNorm by `rms_norm`; parameters and state dict are the same."""

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        if torch.compiler.is_compiling():  # the compiler fuses the plain form itself
            return plain_rms_norm(x, self.weight, self.eps)
        return rms_norm(x, self.weight, self.eps)
