"""Cross-entropy of rows of logits, and its gradient in the logits' place, as one Triton kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST_BLOCK = 8192


@triton.jit
def _cross_entropy_kernel(
    Logits: tl.tensor,
    Targets: tl.tensor,
    Losses: tl.tensor,
    stride: tl.tensor,
    vocab: tl.tensor,
    ignore_index: tl.tensor,
    HAS_IGNORE: tl.constexpr,
    WRITE_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A program per row: one pass for the log-sum-exp, kept running as in flash attention, one for the gradient."""
    row = tl.program_id(0).to(tl.int64)
    Logits += row * stride
    target = tl.load(Targets + row)
    # Read before the reductions, which every warp waits for: later, another warp may have written the gradient there.
    is_column = (target >= 0) & (target < vocab)
    target_logit = tl.load(Logits + target, mask=is_column, other=float("nan")).to(tl.float32)
    offsets = tl.arange(0, BLOCK)
    maximum = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, vocab, BLOCK):
        columns = start + offsets
        logits = tl.load(Logits + columns, mask=columns < vocab, other=float("-inf")).to(tl.float32)
        new_maximum = tl.maximum(maximum, logits)
        # Lanes that have only seen -inf would compute inf - inf.
        shift = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        total = total * tl.exp(maximum - shift) + tl.exp(logits - shift)
        maximum = new_maximum
    row_maximum = tl.max(maximum, 0)
    log_sum_exp = row_maximum + tl.log(tl.sum(total * tl.exp(maximum - row_maximum), 0))

    loss = log_sum_exp - target_logit
    if HAS_IGNORE:
        loss = tl.where(target == ignore_index, 0.0, loss)
    tl.store(Losses + row, loss)
    if WRITE_GRADIENT:
        for start in range(0, vocab, BLOCK):
            columns = start + offsets
            logits = tl.load(Logits + columns, mask=columns < vocab, other=float("-inf")).to(tl.float32)
            gradient = tl.exp(logits - log_sum_exp) - tl.where(columns == target, 1.0, 0.0)
            if HAS_IGNORE:
                gradient = tl.where(target == ignore_index, 0.0, gradient)
            tl.store(Logits + columns, gradient.to(Logits.dtype.element_ty), mask=columns < vocab)


def triton_cross_entropy_(logits: Tensor, targets: Tensor, ignore_index: int | None, write_gradient: bool) -> Tensor:
    """`linear_cross_entropy.cross_entropy_` by the kernel. A target that is no column gives the loss NaN."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    vocab = logits.shape[1]
    block = min(LARGEST_BLOCK, triton.next_power_of_2(vocab))
    with torch.cuda.device_of(logits):
        _cross_entropy_kernel[(len(logits),)](
            logits, targets, losses, logits.stride(0), vocab, ignore_index if ignore_index is not None else 0,
            HAS_IGNORE=ignore_index is not None, WRITE_GRADIENT=write_gradient, BLOCK=block,
            num_warps=8 if block >= 2048 else 4,
        )  # fmt: skip
    return losses
