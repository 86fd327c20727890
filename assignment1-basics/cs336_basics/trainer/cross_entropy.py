"""Cross-entropy between logits and target ids, with a hand-written backward that needs one logits-sized buffer.

For one row of logits o and target y (CS336 assignment 1, "Cross-entropy"):

    loss     = logsumexp(o) - o[y]           logsumexp(o) = max(o) + log sum_j exp(o_j - max(o))
    d loss   = softmax(o) - onehot(y)        softmax(o)   = exp(o - logsumexp(o))

The forward pass keeps the logits (which exist anyway) and one logsumexp per row; the backward pass writes the gradient
straight into its only new buffer. Rows go through in blocks small enough that a block's intermediate steps stay in the
CPU's cache, which also means that bf16 logits are never copied to fp32 as a whole.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# Elements per block: 8 MB of fp32 stay in a CPU's last cache, and smaller blocks would mean more waiting of threads for
# each other, dear on a busy machine. A GPU wants few, large kernels.
_BLOCK_ELEMENTS_CPU = 2**21
_BLOCK_ELEMENTS_ACCELERATOR = 2**26


def _row_blocks(logits: Float[Tensor, "rows vocab"]) -> Iterator[slice]:
    """Slices over the rows, each covering about one block of elements."""
    rows, vocab = logits.shape
    elements = _BLOCK_ELEMENTS_CPU if logits.device.type == "cpu" else _BLOCK_ELEMENTS_ACCELERATOR
    step = rows if torch.compiler.is_compiling() else max(1, elements // max(1, vocab))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _wide(logits: Tensor) -> Tensor:
    """The logits in a type in which sums over the vocabulary are accurate: fp32 for half types, else unchanged."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


class _MeanCrossEntropy(torch.autograd.Function):
    """Mean negative log-likelihood over rows; see the module's formulas."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"]) -> Tensor:
        wide_type = torch.float64 if logits.dtype == torch.float64 else torch.float32
        log_sum_exp = torch.empty(len(logits), dtype=wide_type, device=logits.device)
        for rows in _row_blocks(logits):
            block = _wide(logits[rows])
            # Subtracting the row's maximum keeps exp() at or below 1: no overflow however large the logits.
            maximum = block.amax(dim=-1, keepdim=True)
            log_sum_exp[rows] = (block - maximum).exp_().sum(dim=-1).log_().add_(maximum.squeeze(-1))
        target_logits = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1).to(wide_type)
        ctx.save_for_backward(logits, targets, log_sum_exp)
        return (log_sum_exp - target_logits).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_loss: Float[Tensor, ""]) -> tuple[Tensor, None]:
        logits, targets, log_sum_exp = ctx.saved_tensors
        scale = grad_loss / len(logits)
        gradient = torch.empty_like(logits)
        minus_one = torch.full((1, 1), -1.0, dtype=log_sum_exp.dtype, device=logits.device)
        for rows in _row_blocks(logits):
            # Full-precision logits need no temporary: their block of the gradient is worked on in place.
            block = gradient[rows] if logits.dtype == log_sum_exp.dtype else None
            probabilities = torch.sub(_wide(logits[rows]), log_sum_exp[rows].unsqueeze(-1), out=block).exp_()
            index = targets[rows].unsqueeze(-1)
            probabilities.scatter_add_(-1, index, minus_one.expand(len(index), 1)).mul_(scale)
            if block is None:
                gradient[rows] = probabilities
        return gradient, None


def cross_entropy(logits: Float[Tensor, "... vocab"], targets: Int[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean of -log softmax(logits)[target] over all leading dimensions.

    Args:
        logits: unnormalized scores of any floating type; finite values of any size are safe. Half types are summed in
            fp32, and the loss of half-type logits is fp32.
        targets: ids in [0, vocab), the shape of the logits without the last dimension.

    Returns:
        The mean loss in nats, a scalar. It can be differentiated once with respect to the logits.

    Raises:
        ValueError: the shapes do not fit, or there is nothing to average.
        RuntimeError: a target is not in [0, vocab) (on CUDA: a device-side assertion).
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"targets of shape {tuple(targets.shape)} do not fit logits of shape {tuple(logits.shape)}; "
            f"expected {tuple(logits.shape[:-1])}"
        )
    if targets.numel() == 0:
        raise ValueError(f"cross_entropy needs at least one target, got the shape {tuple(targets.shape)}")
    return _MeanCrossEntropy.apply(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).long())
