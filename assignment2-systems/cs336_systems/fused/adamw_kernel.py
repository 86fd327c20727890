"""One AdamW step of one parameter as one Triton kernel: every number is read once and written once."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _adamw_kernel(
    Parameter: tl.tensor,
    Gradient: tl.tensor,
    First: tl.tensor,
    Second: tl.tensor,
    count: tl.tensor,
    kept: tl.tensor,
    one_minus_beta1: tl.tensor,
    beta2: tl.tensor,
    one_minus_beta2: tl.tensor,
    step_size: tl.tensor,
    addend: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """The formulas of `cs336_basics.trainer.AdamW`, in fp32; each program updates one block."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < count
    gradient = tl.load(Gradient + offsets, mask=inside).to(tl.float32)
    first = tl.load(First + offsets, mask=inside)
    second = tl.load(Second + offsets, mask=inside)
    value = tl.load(Parameter + offsets, mask=inside).to(tl.float32)
    first += one_minus_beta1 * (gradient - first)
    second = beta2 * second + one_minus_beta2 * gradient * gradient
    value = kept * value - step_size * first / (tl.sqrt(second) + addend)
    tl.store(First + offsets, first, mask=inside)
    tl.store(Second + offsets, second, mask=inside)
    tl.store(Parameter + offsets, value.to(Parameter.dtype.element_ty), mask=inside)


def triton_adamw_(
    parameter: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Update a parameter and its fp32 moments in place; all four tensors are contiguous and of one shape.

    Args:
        step: the step's number, from 1.
        lr, betas, eps, weight_decay: as in `cs336_basics.trainer.AdamW`.
    """
    beta1, beta2 = betas
    correction = math.sqrt(1 - beta2**step)
    with torch.cuda.device_of(parameter):
        _adamw_kernel[(triton.cdiv(parameter.numel(), BLOCK),)](
            parameter, gradient, first_moment, second_moment, parameter.numel(), 1 - lr * weight_decay,
            1 - beta1, beta2, 1 - beta2, lr * correction / (1 - beta1**step), eps * correction, BLOCK=BLOCK,
        )  # fmt: skip
