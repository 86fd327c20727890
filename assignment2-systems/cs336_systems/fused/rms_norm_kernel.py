"""RMSNorm and its backward pass in Triton: a row is read once and written once in each.

With r = 1 / sqrt(mean(x²) + eps), x̂ = r x and h = grad · weight (`cs336_basics.model.fused`):

    y = x̂ · weight      d_x = r (h - x̂ mean(h x̂))      d_weight = sum over rows of grad · x̂

The sum over rows is made in two steps, without atomic additions: each program adds up its own rows, and the programs'
sums are added afterwards.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _forward_kernel(
    X: tl.tensor,
    Weight: tl.tensor,
    Y: tl.tensor,
    InverseRMS: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(X + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(Weight + columns, mask=inside, other=0.0).to(tl.float32)
    inverse_rms = 1 / tl.sqrt(tl.sum(x * x, 0) / width + eps)
    tl.store(InverseRMS + row, inverse_rms)
    tl.store(Y + row * width + columns, (x * inverse_rms * weight).to(Y.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    X: tl.tensor,
    Weight: tl.tensor,
    InverseRMS: tl.tensor,
    Grad: tl.tensor,
    GradX: tl.tensor,
    PartialGradWeight: tl.tensor,
    num_rows: tl.tensor,
    rows_per_program: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    program = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    weight = tl.load(Weight + columns, mask=inside, other=0.0).to(tl.float32)
    grad_weight = tl.zeros((BLOCK,), dtype=tl.float32)
    first = program * rows_per_program
    for row in range(first, tl.minimum(first + rows_per_program, num_rows)):
        x = tl.load(X + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(Grad + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        inverse_rms = tl.load(InverseRMS + row)
        normalized = x * inverse_rms
        grad_weight += grad * normalized
        h = grad * weight
        grad_x = inverse_rms * (h - normalized * (tl.sum(h * normalized, 0) / width))
        tl.store(GradX + row * width + columns, grad_x.to(GradX.dtype.element_ty), mask=inside)
    tl.store(PartialGradWeight + program * width + columns, grad_weight, mask=inside)


def _launch_shape(width: int) -> dict[str, int]:
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(16, max(1, block // 512))}


def triton_rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of contiguous rows (rows, width), in x's type, and 1 / rms of each row, (rows,) in fp32."""
    rows, width = x.shape
    y, inverse_rms = torch.empty_like(x), torch.empty(rows, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _forward_kernel[(rows,)](x, weight, y, inverse_rms, width, eps, **_launch_shape(width))
    return y, inverse_rms


def triton_rms_norm_backward(x: Tensor, weight: Tensor, inverse_rms: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `x` and of `weight`, in their types."""
    rows, width = x.shape
    # A few programs per multiprocessor, so that the partial sums stay small.
    multiprocessors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
    rows_per_program = triton.cdiv(rows, min(rows, 4 * multiprocessors))
    programs = triton.cdiv(rows, rows_per_program)
    grad_x = torch.empty_like(x)
    partial = torch.empty(programs, width, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _backward_kernel[(programs,)](
            x, weight, inverse_rms, grad, grad_x, partial, rows, rows_per_program, width, **_launch_shape(width)
        )
    return grad_x, partial.sum(dim=0).to(weight.dtype)
