"""The Spring 2025 handout's microbatch steps: from log-probabilities to gradients."""

from jaxtyping import Bool, Float
from torch import Tensor

from cs336_alignment.masked import masked_mean, masked_normalize
from cs336_alignment.policy_gradient.aggregation import aggregate_loss_across_microbatch
from cs336_alignment.policy_gradient.losses import LossType, Metadata, compute_loss_of_type
from cs336_basics.command_line import UsageError


def _check_accumulation(gradient_accumulation_steps: int) -> None:
    if gradient_accumulation_steps < 1:
        raise UsageError(f"gradient_accumulation_steps is {gradient_accumulation_steps}; allowed are numbers from 1")


def sft_microbatch_train_step(
    policy_log_probs: Float[Tensor, "microbatch seq"],
    response_mask: Bool[Tensor, "microbatch seq"],
    gradient_accumulation_steps: int,
    normalize_constant: float | None = 1.0,
) -> tuple[Float[Tensor, ""], Metadata]:
    """Backpropagate the negative log-likelihood of the responses: the sum over a response's tokens divided by
    `normalize_constant` (None: by 1), the mean over the microbatch, divided by `gradient_accumulation_steps`.

    Returns:
        The loss that was backpropagated, detached, and the metadata "token_nll": the mean over the response tokens.

    Raises:
        UsageError: `gradient_accumulation_steps` is below 1.
    """
    _check_accumulation(gradient_accumulation_steps)
    constant = 1.0 if normalize_constant is None else normalize_constant
    per_sequence = masked_normalize(-policy_log_probs, response_mask, dim=1, normalize_constant=constant)
    loss = per_sequence.mean() / gradient_accumulation_steps
    loss.backward()
    return loss.detach(), {"token_nll": masked_mean(-policy_log_probs.detach(), response_mask)}


def grpo_microbatch_train_step(
    policy_log_probs: Float[Tensor, "microbatch seq"],
    response_mask: Bool[Tensor, "microbatch seq"],
    gradient_accumulation_steps: int,
    loss_type: LossType,
    raw_rewards: Float[Tensor, "microbatch 1"] | None = None,
    advantages: Float[Tensor, "microbatch 1"] | None = None,
    old_log_probs: Float[Tensor, "microbatch seq"] | None = None,
    cliprange: float | None = None,
) -> tuple[Float[Tensor, ""], Metadata]:
    """Backpropagate a policy-gradient loss: the mean over each response's tokens, the mean over the microbatch,
    divided by `gradient_accumulation_steps`.

    Returns:
        The loss that was backpropagated, detached, and the metadata of `compute_loss_of_type`.

    Raises:
        UsageError: the type is unknown or lacks what it needs, or `gradient_accumulation_steps` is below 1.
    """
    _check_accumulation(gradient_accumulation_steps)
    per_token, metadata = compute_loss_of_type(
        policy_log_probs, loss_type, raw_rewards, advantages, old_log_probs, cliprange, response_mask=response_mask
    )
    loss = aggregate_loss_across_microbatch(per_token, response_mask) / gradient_accumulation_steps
    loss.backward()
    return loss.detach(), metadata
