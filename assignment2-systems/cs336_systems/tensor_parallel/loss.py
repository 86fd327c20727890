"""Cross-entropy over logits that are divided by the vocabulary, which are never gathered.

With o the logits of one token, of which each rank holds a part, and y its target (Shoeybi et al. 2019,
https://arxiv.org/abs/1909.08053, section 3; Narayanan et al. 2021, https://arxiv.org/abs/2104.04473):

    loss   = logsumexp(o) - o[y]        d loss = softmax(o) - onehot(y)

Three numbers per token travel: the maximum, then the sum of exponentials and the target's logit. The gradient of a
rank's logits needs only those.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from cs336_basics.model.functional import upcast
from cs336_systems.tensor_parallel.collectives import group_shard_range
from cs336_systems.tensor_parallel.token_ids import local_ids


class _VocabParallelCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "rows shard"],
        local_targets: Int[Tensor, " rows"],
        is_mine: Bool[Tensor, " rows"],
        group: dist.ProcessGroup,
    ) -> Float[Tensor, ""]:
        wide = upcast(logits)
        maximum = wide.amax(dim=-1)
        dist.all_reduce(maximum, dist.ReduceOp.MAX, group=group)
        total = (wide - maximum.unsqueeze(-1)).exp_().sum(dim=-1)
        target_logits = wide.gather(-1, local_targets.unsqueeze(-1)).squeeze(-1) * is_mine
        sums = torch.stack((total, target_logits))
        dist.all_reduce(sums, group=group)
        total, target_logits = sums
        log_sum_exp = total.log_().add_(maximum)
        ctx.save_for_backward(logits, local_targets, is_mine, log_sum_exp)
        return (log_sum_exp - target_logits).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Float[Tensor, ""]) -> tuple[Tensor, None, None, None]:
        logits, local_targets, is_mine, log_sum_exp = ctx.saved_tensors
        gradient = (upcast(logits) - log_sum_exp.unsqueeze(-1)).exp_()
        gradient.scatter_add_(-1, local_targets.unsqueeze(-1), -is_mine.to(gradient.dtype).unsqueeze(-1))
        return gradient.mul_(grad_loss / len(logits)).to(logits.dtype), None, None, None


def vocab_parallel_cross_entropy(
    logits: Float[Tensor, "... shard"], targets: Int[Tensor, "..."], vocab_size: int, group: dist.ProcessGroup
) -> Float[Tensor, ""]:
    """`cs336_basics.trainer.cross_entropy.cross_entropy` of logits divided over the ranks of `group`.

    Args:
        logits: this rank's part, of the token ids `shard_range(vocab_size, ...)`. Half types are summed in fp32.
        targets: ids in [0, vocab_size), the same on every rank; the shape of the logits without the last dimension.
        vocab_size: the number of all token ids.
        group: the ranks that share the vocabulary.

    Returns:
        The mean loss in nats, the same scalar on every rank. It can be differentiated once with respect to the logits.

    Raises:
        ValueError: the shapes do not fit, or there is nothing to average.
        IndexError: a target is not in [0, vocab_size) (on an accelerator: a device-side assertion).
    """
    mine = group_shard_range(vocab_size, group)
    expected = (*targets.shape, len(mine))
    if logits.shape != expected or targets.numel() == 0:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit targets of shape {tuple(targets.shape)}; this rank's "
            f"part of {vocab_size} token ids takes at least one target and logits of shape {expected}"
        )
    local_targets, is_mine = local_ids(targets.flatten().long(), mine, vocab_size)
    return _VocabParallelCrossEntropy.apply(logits.flatten(0, -2), local_targets, is_mine, group)
