"""The language-model head and its loss in one, without the matrix of all logits.

For a vocabulary of V and N tokens the logits and their gradient are two (N, V) matrices, often the largest tensors of a
training step. Here the tokens go through in chunks: a chunk's logits, their loss, their gradient, and what that
gradient adds to those of the hidden states and of the weight are computed together, and the chunk's logits are gone
before the next chunk's are made. With the mean over tokens, and p the softmax of a token's logits,

    loss = mean(-log p[target])      d logits = (p - onehot(target)) / N
    d hidden = d logits · W          d W = d logitsᵀ · hidden

The gradients are thus ready when the loss is; the backward pass only multiplies them by the loss's own gradient. The
idea of chunks with early gradients is that of Hsu et al. 2024, "Liger Kernel" (https://arxiv.org/abs/2410.10989,
section 3.2).
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from cs336_basics.command_line import UsageError
from cs336_systems.triton_support import triton_runs_on

# Logits of one chunk: small enough for a CPU's cache, and on a GPU a few large matrix products.
_CHUNK_ELEMENTS_CPU = 2**21
_CHUNK_ELEMENTS_ACCELERATOR = 2**26


def cross_entropy_(
    logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"], ignore_index: int | None, write_gradient: bool
) -> Float[Tensor, " rows"]:
    """The loss of each row, in nats; rows whose target is `ignore_index` have loss and gradient 0.

    Args:
        logits: overwritten: by the gradient of the sum of losses, if `write_gradient`.
    """
    log_sum_exp = torch.logsumexp(logits, dim=-1)
    counts = torch.ones_like(targets, dtype=torch.bool) if ignore_index is None else targets != ignore_index
    index = targets.masked_fill(~counts, 0).unsqueeze(-1)
    losses = log_sum_exp - logits.gather(-1, index).squeeze(-1)
    if write_gradient:
        probabilities = logits.sub_(log_sum_exp.unsqueeze(-1)).exp_()
        probabilities.scatter_add_(-1, index, logits.new_full((1, 1), -1.0).expand_as(index))
        if ignore_index is not None:
            probabilities.mul_(counts.unsqueeze(-1))
    return losses.masked_fill_(~counts, 0.0)


class _LinearCrossEntropy(torch.autograd.Function):
    """On hidden (tokens, d_model), weight (vocab, d_model) and targets (tokens,); see the module's formulas."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        ignore_index: int | None,
        chunk_tokens: int,
        compute_dtype: torch.dtype,
        with_gradients: bool,
    ) -> Tensor:
        wide = torch.promote_types(compute_dtype, torch.float32)
        needs_hidden, needs_weight = (with_gradients and needed for needed in ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        any_gradient = grad_hidden is not None or grad_weight is not None
        factors = weight.to(compute_dtype)
        use_triton = triton_runs_on(hidden.device) and compute_dtype != torch.float64
        counted = targets.numel() if ignore_index is None else (targets != ignore_index).sum().to(wide)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for start in range(0, len(hidden), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            chunk = hidden[rows].to(compute_dtype)
            if use_triton:
                from cs336_systems.fused.cross_entropy_kernel import triton_cross_entropy_

                logits = chunk @ factors.T
                losses = triton_cross_entropy_(logits, targets[rows], ignore_index, any_gradient)
            else:
                logits = (chunk @ factors.T).to(wide)
                losses = cross_entropy_(logits, targets[rows], ignore_index, any_gradient)
            total += losses.sum()
            grad_logits = logits.to(compute_dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = (grad_logits @ factors).div_(counted)
            if grad_weight is not None:
                if compute_dtype == wide:
                    grad_weight.addmm_(grad_logits.T, chunk)
                else:
                    grad_weight += grad_logits.T @ chunk
        if grad_weight is not None:
            grad_weight.div_(counted)
        ctx.weight_dtype = weight.dtype
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total / counted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        # In place: these may be the largest tensors there are. A second backward pass is refused by autograd, which
        # sees that saved tensors were changed.
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden.mul_(grad_loss)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(grad_loss).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None, None


def linear_cross_entropy(
    hidden: Float[Tensor, "... d_model"],
    weight: Float[Tensor, "vocab d_model"],
    targets: Int[Tensor, "..."],
    ignore_index: int | None = None,
    chunk_tokens: int | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the logits `hidden` · `weight`ᵀ, of which only a chunk exists at a time.

    Matrix products are in the inputs' type, or under autocast in its type; softmax, loss and the sum of the weight's
    gradient over chunks are in fp32 (fp64 for fp64 inputs). It can be differentiated once.

    Args:
        hidden: what the head reads, as `BasicsTransformerLM.hidden_states` gives it.
        weight: of the head, `model.lm_head.weight`.
        targets: ids in [0, vocab), or `ignore_index`.
        ignore_index: tokens with this target do not count; None counts all.
        chunk_tokens: tokens per chunk; None takes as many as fit a fixed size of logits for the device.

    Returns:
        The mean loss in nats over the tokens that count, a scalar; NaN if none does.

    Raises:
        UsageError: the shapes do not fit, or there are no tokens.
        RuntimeError: a target is not in [0, vocab). Triton's kernel cannot raise: there the loss is NaN.
    """
    if hidden.shape[:-1] != targets.shape or weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        raise UsageError(
            f"linear_cross_entropy got hidden states {tuple(hidden.shape)}, a weight {tuple(weight.shape)} and targets "
            f"{tuple(targets.shape)}; allowed are (..., d_model), (vocab, d_model) and (...)"
        )
    if not targets.numel():
        raise UsageError(f"linear_cross_entropy needs at least one target, got the shape {tuple(targets.shape)}")
    device = hidden.device.type
    if chunk_tokens is None:
        elements = _CHUNK_ELEMENTS_CPU if device == "cpu" else _CHUNK_ELEMENTS_ACCELERATOR
        chunk_tokens = max(1, elements // len(weight))
    elif chunk_tokens < 1:
        raise UsageError(f"chunk_tokens is {chunk_tokens}; allowed is any whole number above 0")
    autocast = torch.is_autocast_enabled(device)
    compute_dtype = torch.get_autocast_dtype(device) if autocast else torch.promote_types(hidden.dtype, weight.dtype)
    with torch.autocast(device, enabled=False):
        return _LinearCrossEntropy.apply(
            hidden.reshape(-1, hidden.shape[-1]), weight, targets.flatten().long(), ignore_index, chunk_tokens,
            compute_dtype, torch.is_grad_enabled(),
        )  # fmt: skip
