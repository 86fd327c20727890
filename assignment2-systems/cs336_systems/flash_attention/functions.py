"""Flash attention as two autograd functions, by PyTorch's operations and by Triton's kernels.

Either can take any of three backward passes, since all start from the same five tensors: Q, K, V, the output and the
log-sum-exp of each query's scores.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cs336_basics.command_line import UsageError
from cs336_systems.flash_attention.compiled_backward import compiled_backward
from cs336_systems.flash_attention.layout import check_inputs
from cs336_systems.flash_attention.tiled import tiled_backward, tiled_forward
from cs336_systems.flash_attention.triton_ops import check_for_kernels, triton_backward, triton_forward

BackwardKind = Literal["triton", "compiled", "pytorch"]
"""Triton's kernels; the whole matrices' equations under `torch.compile`; PyTorch in tiles."""

_BACKWARD_PASSES = {"triton": triton_backward, "compiled": compiled_backward, "pytorch": tiled_backward}


def _save(ctx: Any, tensors: tuple[Tensor, ...], is_causal: bool, backward: BackwardKind) -> None:
    if backward not in get_args(BackwardKind):
        raise UsageError(f"backward is {backward!r}; allowed are {', '.join(get_args(BackwardKind))}")
    if backward == "triton":
        check_for_kernels(tensors[0])
    ctx.save_for_backward(*tensors)
    ctx.is_causal, ctx.backward_pass = is_causal, _BACKWARD_PASSES[backward]


def _gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    with torch.autocast(grad_out.device.type, enabled=False):
        grad_q, grad_k, grad_v = ctx.backward_pass(grad_out, *ctx.saved_tensors, ctx.is_causal)
    return grad_q, grad_k, grad_v, None, None


class TiledFlashAttention(torch.autograd.Function):
    """`TiledFlashAttention.apply(Q, K, V, is_causal=False)`: softmax(Q Kᵀ / sqrt(d)) V in tiles, in plain PyTorch.

    Q is (..., queries, d), K and V are (..., keys, d), with the same leading dimensions, usually (batch,) or
    (batch, heads). The output has the shape and type of Q; half precision is computed in fp32. With `is_causal`, query
    i sees the keys 0 … i, whatever the two lengths are (the mask starts in the top left corner). So every query sees a
    key, unless there are none at all: then the output is 0 and its log-sum-exp -inf.

    For the backward pass it saves Q, K, V, the output and the log-sum-exp of each query's scores, (..., queries). A
    fifth argument chooses that pass, a `BackwardKind`.

    Raises:
        UsageError: the inputs do not go together.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, backward: BackwardKind = "pytorch"
    ) -> Tensor:
        check_inputs(q, k, v)
        with torch.autocast(q.device.type, enabled=False):
            out, log_sum_exp = tiled_forward(q, k, v, is_causal)
        _save(ctx, (q, k, v, out, log_sum_exp), is_causal, backward)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        return _gradients(ctx, grad_out)


class TritonFlashAttention(torch.autograd.Function):
    """`TritonFlashAttention.apply(Q, K, V, is_causal=False)`: the same by Triton's kernels.

    For fp32, fp16 and bf16 and head dimensions of up to 256, on a CUDA device or, under TRITON_INTERPRET=1, on the CPU.
    Half precision is multiplied as such and summed in fp32; fp32 is multiplied as exactly as
    `torch.set_float32_matmul_precision` asks for. Everything else is as in `TiledFlashAttention`.

    Raises:
        UsageError: the inputs do not go together, or the kernels cannot compute them here.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, backward: BackwardKind = "triton"
    ) -> Tensor:
        check_inputs(q, k, v)
        check_for_kernels(q)
        out, log_sum_exp = triton_forward(q, k, v, is_causal)
        _save(ctx, (q, k, v, out, log_sum_exp), is_causal, backward)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        return _gradients(ctx, grad_out)
