"""One update of a policy on a batch of rollouts."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cs336_alignment.grading.reward import RewardFunction
from cs336_alignment.policy_gradient.advantages import (
    AdvantageNormalizer,
    Baseline,
    compute_group_normalized_rewards,
)
from cs336_alignment.policy_gradient.aggregation import LossNormalization
from cs336_alignment.policy_gradient.batch import PolicyGradientLoss, RolloutBatch
from cs336_alignment.policy_gradient.kl import KLEstimator
from cs336_alignment.policy_gradient.losses import ImportanceReweighting
from cs336_alignment.policy_gradient.rewards import compute_rollout_rewards
from cs336_alignment.tokenization import tokenize_prompt_and_output
from cs336_basics.command_line import UsageError
from cs336_basics.trainer.gradient_clipping import global_gradient_norm, scale_gradients


def policy_gradient_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: RolloutBatch,
    loss: PolicyGradientLoss,
    gradient_accumulation_steps: int = 1,
    max_grad_norm: float | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The gradient of a batch's loss, a microbatch at a time; clipping by its global L2 norm; the optimizer's step.

    The gradient is that of the whole batch at once, also where the batch does not divide evenly.

    Args:
        model: a causal language model, left in the mode (training or evaluation) in which it comes.
        gradient_accumulation_steps: microbatches, at most as many as rows.
        max_grad_norm: None does not clip.

    Returns:
        The batch's loss, and the metadata "loss", "grad_norm" (before clipping), "token_entropy", "clip_fraction" and,
        with reference log-probabilities, "kl": detached scalars. Every `.grad` is None.

    Raises:
        UsageError: a setting is not allowed, or no response has any token; nothing is updated then.
    """
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise UsageError(f"max_grad_norm is {max_grad_norm}; allowed are numbers above 0, or None for no clipping")
    num_tokens = batch.num_tokens
    if not num_tokens:
        raise UsageError("no response has any token; a policy gradient needs at least one")
    parameters = list(model.parameters())
    _clear_gradients(model, optimizer)
    totals: dict[str, Tensor] = {}
    for microbatch in batch.microbatches(gradient_accumulation_steps):
        share, metrics = loss.share(model, microbatch.to(parameters[0].device), len(batch), num_tokens)
        share.backward()
        for name, value in {"loss": share.detach(), **metrics}.items():
            totals[name] = totals[name] + value if name in totals else value
    norm = global_gradient_norm(parameters)
    if max_grad_norm is not None:
        scale_gradients(parameters, norm, max_grad_norm)
    optimizer.step()
    _clear_gradients(model, optimizer)
    return totals["loss"], totals | {"grad_norm": norm}


def _clear_gradients(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Set every `.grad` to None, also of parameters that only one of the two holds."""
    optimizer.zero_grad(set_to_none=True)
    model.zero_grad(set_to_none=True)


def grpo_train_step(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    gradient_accumulation_steps: int,
    max_grad_norm: float | None,
    reward_fn: RewardFunction,
    repeated_prompts: Sequence[str],
    rollout_responses: Sequence[str],
    repeated_ground_truths: Sequence[str],
    group_size: int,
    baseline: Baseline = "mean",
    advantage_eps: float = 1e-6,
    advantage_normalizer: AdvantageNormalizer = "std",
    importance_reweighting_method: ImportanceReweighting = "none",
    old_log_probs: Float[Tensor, "batch seq"] | None = None,
    cliprange: float | None = None,
    loss_normalization: LossNormalization = "sequence",
    normalization_constant: float | None = None,
    *,
    cliprange_high: float | None = None,
    kl_coefficient: float = 0.0,
    kl_estimator: KLEstimator = "k3",
    kl_reweighting: bool = False,
    reference_log_probs: Float[Tensor, "batch seq"] | None = None,
    chunk_tokens: int | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor | float]]:
    """One update of a policy on responses to prompts: rewards, advantages, `policy_gradient_step`.

    Args:
        repeated_prompts, rollout_responses, repeated_ground_truths: one per rollout; a group's stand next to each
            other.
        group_size: responses per prompt.
        baseline, advantage_eps, advantage_normalizer: of `compute_group_normalized_rewards`.
        old_log_probs, reference_log_probs: aligned with the labels of `tokenize_prompt_and_output` for the whole batch.

        The other settings are those of `PolicyGradientLoss` and `policy_gradient_step`.

    Returns:
        The batch's loss, and the metadata of `policy_gradient_step`, of the rewards and of the advantages.

    Raises:
        UsageError: a setting is not allowed; nothing is updated then.
    """
    rewards, reward_metadata = compute_rollout_rewards(reward_fn, rollout_responses, repeated_ground_truths)
    advantages, advantage_metadata = compute_group_normalized_rewards(
        rewards, group_size, baseline, advantage_eps, advantage_normalizer
    )
    tokens = tokenize_prompt_and_output(repeated_prompts, rollout_responses, tokenizer)
    batch = RolloutBatch(
        **tokens, advantages=advantages, old_log_probs=old_log_probs, reference_log_probs=reference_log_probs
    )
    loss_choice = PolicyGradientLoss(
        importance_reweighting_method, cliprange, cliprange_high, loss_normalization, normalization_constant,
        kl_coefficient, kl_estimator, kl_reweighting, chunk_tokens,
    )  # fmt: skip
    loss, metadata = policy_gradient_step(
        model, optimizer, batch, loss_choice, gradient_accumulation_steps, max_grad_norm
    )
    return loss, metadata | reward_metadata | advantage_metadata
