"""Hand-written backward passes for RMSNorm and the SwiGLU gate.

Plain autograd keeps every intermediate of `functional.rms_norm` and `functional.swiglu_gate` until the backward pass.
Each function here keeps only its inputs (and one number per row), and computes the rest again.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cs336_basics.model.functional import rms_norm, swiglu_gate, upcast


class _RMSNorm(torch.autograd.Function):
    """With x̂ = x / rms(x) and h = grad · weight:

    d_x = (h - x̂ · mean(h · x̂)) / rms(x),   d_weight = sum over rows of grad · x̂.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x32 = upcast(x)
        # The norm squared is the sum of squares, without a temporary of x's size.
        mean_square = torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse_rms = mean_square.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse_rms)
        return (x32 * inverse_rms).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse_rms = ctx.saved_tensors
        normalized = upcast(x) * inverse_rms
        grad32 = upcast(grad)
        product = grad32 * normalized
        grad_weight = product.reshape(-1, x.shape[-1]).sum(dim=0).to(weight.dtype)
        mean = (product @ upcast(weight)).unsqueeze(-1).div_(x.shape[-1])
        grad_x = torch.mul(grad32, weight, out=product).addcmul_(normalized, mean, value=-1).mul_(inverse_rms)
        return grad_x.to(x.dtype), grad_weight, None


def fused_rms_norm(
    x: Float[Tensor, "... d_model"], weight: Float[Tensor, " d_model"], eps: float
) -> Float[Tensor, "... d_model"]:
    """`functional.rms_norm`, keeping x and one number per row for the backward pass, if there is to be one."""
    if not torch.is_grad_enabled():
        return rms_norm(x, weight, eps)
    return _RMSNorm.apply(x, weight, eps)


class _SwiGLUGate(torch.autograd.Function):
    """With s = sigmoid(gate): d_up = grad · gate · s and d_gate = grad · up · s · (1 + gate · (1 - s))."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return torch.sigmoid(gate).mul_(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        sigmoid = torch.sigmoid(gate)
        silu = sigmoid * gate
        grad_up = grad * silu
        # The derivative s · (1 + gate · (1 - s)) equals s + silu · (1 - s) = silu + s · (1 - silu).
        derivative = silu.add_(sigmoid.addcmul_(sigmoid, silu, value=-1))
        return derivative.mul_(up).mul_(grad), grad_up


def fused_swiglu_gate(gate: Float[Tensor, "..."], up: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """`functional.swiglu_gate`, keeping only its two inputs for the backward pass, if there is to be one."""
    if not torch.is_grad_enabled():
        return swiglu_gate(gate, up)
    return _SwiGLUGate.apply(gate, up)
