"""The Triton kernels as operators that torch knows, `torch.compile` included.

The kernels are imported when they are first used: Triton is not on every machine.
"""

import math

import torch
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_systems.flash_attention.layout import empty_like_sequence, empty_log_sum_exp
from cs336_systems.triton_support import require_triton

LARGEST_HEAD_DIMENSION = 256


def check_for_kernels(q: Tensor) -> None:
    """Refuse queries that the kernels cannot work on.

    Raises:
        UsageError: no kernel runs on this device, or the type or the head dimension is none of theirs.
    """
    require_triton(q.device)
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise UsageError(f"the Triton kernels got {q.dtype}; allowed are float32, float16 and bfloat16")
    if q.shape[-1] > LARGEST_HEAD_DIMENSION:
        raise UsageError(f"the Triton kernels got head dimension {q.shape[-1]}; allowed are 1–{LARGEST_HEAD_DIMENSION}")


def _with_dense_rows(*tensors: Tensor) -> list[Tensor]:
    """The tensors, copied where the numbers of a row are not next to each other; the kernels count on that."""
    return [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]


@torch.library.custom_op("cs336_systems::triton_attention_forward", mutates_args=())
def triton_forward(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    """`tiled.tiled_forward` by the kernel of `triton_forward.py`."""
    out, log_sum_exp = empty_like_sequence(q), empty_log_sum_exp(q)
    if not k.numel():
        return out.zero_(), log_sum_exp.fill_(-math.inf)
    if q.numel():
        from cs336_systems.flash_attention.triton_forward import launch_forward

        launch_forward(*_with_dense_rows(q, k, v), is_causal, out, log_sum_exp)
    return out, log_sum_exp


@triton_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    return empty_like_sequence(q), empty_log_sum_exp(q)


@torch.library.custom_op("cs336_systems::triton_attention_backward", mutates_args=())
def triton_backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum_exp: Tensor, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`tiled.tiled_backward` by the kernels of `triton_backward.py`."""
    gradients = empty_like_sequence(q), empty_like_sequence(k), empty_like_sequence(v)
    if not (q.numel() and k.numel()):
        for gradient in gradients:
            gradient.zero_()
        return gradients
    from cs336_systems.flash_attention.triton_backward import launch_backward

    launch_backward(*_with_dense_rows(grad_out, q, k, v, out), log_sum_exp.contiguous(), is_causal, *gradients)
    return gradients


@triton_backward.register_fake
def _(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum_exp: Tensor, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like_sequence(q), empty_like_sequence(k), empty_like_sequence(v)
