"""The functions that the course's test suites call, of the Spring 2025 and 2026 editions, bound to this package.

Two names have other parameters in each edition; they take either edition's keywords, and refuse a mixture.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase


def run_tokenize_prompt_and_output(
    prompt_strs: list[str], output_strs: list[str], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Tensor]:
    """ "input_ids", "labels" and "response_mask" of prompts and outputs, each (batch, seq)."""
    from cs336_alignment.tokenization import tokenize_prompt_and_output

    return tokenize_prompt_and_output(prompt_strs, output_strs, tokenizer)


def run_compute_rollout_rewards(
    reward_fn: Callable[[str, str], dict[str, float]],
    rollout_responses: list[str],
    repeated_ground_truths: list[str],
) -> tuple[torch.Tensor, dict[str, float]]:
    """The raw rewards (rollouts,) and their statistics."""
    from cs336_alignment.policy_gradient.rewards import compute_rollout_rewards

    return compute_rollout_rewards(reward_fn, rollout_responses, repeated_ground_truths)


def run_compute_group_normalized_rewards(**given: Any) -> tuple[Any, ...]:
    """Spring 2025 (reward_fn, rollout_responses, repeated_ground_truths, group_size, advantage_eps, normalize_by_std):
    (advantages, raw rewards, metadata). Spring 2026 (raw_rewards, group_size, baseline, advantage_eps,
    advantage_normalizer): (advantages, metadata)."""
    from cs336_alignment.policy_gradient.advantages import compute_group_normalized_rewards, score_and_normalize
    from cs336_alignment.policy_gradient.editions import by_edition

    return by_edition({"Spring 2025": score_and_normalize, "Spring 2026": compute_group_normalized_rewards}, **given)


def run_compute_entropy(logits: torch.Tensor) -> torch.Tensor:
    """The entropy of softmax(logits) over the last dimension, in nats."""
    from cs336_alignment.log_probs import compute_entropy

    return compute_entropy(logits)


def run_get_response_log_probs(
    model: torch.nn.Module, input_ids: torch.Tensor, labels: torch.Tensor, return_token_entropy: bool = False
) -> dict[str, torch.Tensor]:
    """ "log_probs" and, if asked for, "token_entropy", each (batch, seq)."""
    from cs336_alignment.log_probs import get_response_log_probs

    return get_response_log_probs(model, input_ids, labels, return_token_entropy)


def run_compute_naive_policy_gradient_loss(
    raw_rewards_or_advantages: torch.Tensor, policy_log_probs: torch.Tensor
) -> torch.Tensor:
    """REINFORCE's loss per token, (batch, seq)."""
    from cs336_alignment.policy_gradient.losses import compute_naive_policy_gradient_loss

    return compute_naive_policy_gradient_loss(raw_rewards_or_advantages, policy_log_probs)


def run_compute_grpo_clip_loss(
    advantages: torch.Tensor, policy_log_probs: torch.Tensor, old_log_probs: torch.Tensor, cliprange: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """GRPO's clipped loss per token, (batch, seq), and what was clipped."""
    from cs336_alignment.policy_gradient.losses import compute_grpo_clip_loss

    return compute_grpo_clip_loss(advantages, policy_log_probs, old_log_probs, cliprange)


def run_compute_policy_gradient_loss(**given: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Spring 2025 (policy_log_probs, loss_type, raw_rewards, advantages, old_log_probs, cliprange), Spring 2026
    (raw_rewards_or_advantages, policy_log_probs, importance_reweighting_method, old_log_probs, cliprange,
    response_mask): the loss per token, and metadata."""
    from cs336_alignment.policy_gradient.editions import by_edition
    from cs336_alignment.policy_gradient.losses import compute_loss_of_type, compute_policy_gradient_loss

    return by_edition({"Spring 2025": compute_loss_of_type, "Spring 2026": compute_policy_gradient_loss}, **given)


def run_aggregate_loss_across_microbatch(
    per_token_policy_gradient_loss: torch.Tensor,
    mask: torch.Tensor,
    loss_normalization: Literal["sequence", "constant"] = "sequence",
    normalization_constant: int | None = None,
) -> torch.Tensor:
    """The loss of a microbatch, a scalar."""
    from cs336_alignment.policy_gradient.aggregation import aggregate_loss_across_microbatch

    return aggregate_loss_across_microbatch(
        per_token_policy_gradient_loss, mask, loss_normalization, normalization_constant
    )


def run_masked_mean(tensor: torch.Tensor, mask: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """The mean where the mask is True."""
    from cs336_alignment.masked import masked_mean

    return masked_mean(tensor, mask, dim)


def run_masked_normalize(
    tensor: torch.Tensor, mask: torch.Tensor, dim: int | None = None, normalize_constant: float = 1.0
) -> torch.Tensor:
    """The sum where the mask is True, divided by a constant."""
    from cs336_alignment.masked import masked_normalize

    return masked_normalize(tensor, mask, dim, normalize_constant)


def run_sft_microbatch_train_step(
    policy_log_probs: torch.Tensor,
    response_mask: torch.Tensor,
    gradient_accumulation_steps: int,
    normalize_constant: int | None = 1.0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Backpropagate the negative log-likelihood of a microbatch."""
    from cs336_alignment.policy_gradient.microbatch import sft_microbatch_train_step

    return sft_microbatch_train_step(policy_log_probs, response_mask, gradient_accumulation_steps, normalize_constant)


def run_grpo_microbatch_train_step(
    policy_log_probs: torch.Tensor,
    response_mask: torch.Tensor,
    gradient_accumulation_steps: int,
    loss_type: Literal["no_baseline", "reinforce_with_baseline", "grpo_clip"],
    raw_rewards: torch.Tensor | None = None,
    advantages: torch.Tensor | None = None,
    old_log_probs: torch.Tensor | None = None,
    cliprange: float | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Backpropagate the policy-gradient loss of a microbatch."""
    from cs336_alignment.policy_gradient.microbatch import grpo_microbatch_train_step

    return grpo_microbatch_train_step(
        policy_log_probs, response_mask, gradient_accumulation_steps, loss_type, raw_rewards, advantages,
        old_log_probs, cliprange,
    )  # fmt: skip


def run_grpo_train_step(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    gradient_accumulation_steps: int,
    max_grad_norm: float | None,
    reward_fn: Callable[[str, str], dict[str, float]],
    repeated_prompts: list[str],
    rollout_responses: list[str],
    repeated_ground_truths: list[str],
    group_size: int,
    baseline: Literal["mean", "none"] = "mean",
    advantage_eps: float = 1e-6,
    advantage_normalizer: Literal["std", "none", "mean"] = "std",
    importance_reweighting_method: Literal["none", "noclip", "grpo", "gspo"] = "none",
    old_log_probs: torch.Tensor | None = None,
    cliprange: float | None = None,
    loss_normalization: Literal["sequence", "constant"] = "sequence",
    normalization_constant: int | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
    """One update of a policy on a batch of rollouts; every gradient is None afterwards."""
    from cs336_alignment.policy_gradient.step import grpo_train_step

    return grpo_train_step(
        model, tokenizer, optimizer, gradient_accumulation_steps, max_grad_norm, reward_fn, repeated_prompts,
        rollout_responses, repeated_ground_truths, group_size, baseline, advantage_eps, advantage_normalizer,
        importance_reweighting_method, old_log_probs, cliprange, loss_normalization, normalization_constant,
    )  # fmt: skip


def get_packed_sft_dataset(
    tokenizer: PreTrainedTokenizerBase, dataset_path: str | os.PathLike, seq_length: int, shuffle: bool
) -> Dataset:
    """Instruction data packed into sequences of `seq_length` tokens."""
    from cs336_alignment.sft.packed import PackedSFTDataset

    return PackedSFTDataset(tokenizer, dataset_path, seq_length, shuffle)


def run_iterate_batches(dataset: Dataset, batch_size: int, shuffle: bool) -> Any:
    """An iterable of a data set's batches, with a length."""
    from cs336_alignment.sft.batches import iterate_batches

    return iterate_batches(dataset, batch_size, shuffle)


def run_parse_mmlu_response(mmlu_example: dict[str, Any], model_output: str) -> str | None:
    """The letter of the option that a response chooses, or None."""
    from cs336_alignment.response_parsing import parse_mmlu_response

    return parse_mmlu_response(mmlu_example, model_output)


def run_parse_gsm8k_response(model_output: str) -> str | None:
    """The last number of a response, or None."""
    from cs336_alignment.response_parsing import parse_gsm8k_response

    return parse_gsm8k_response(model_output)


def run_compute_per_instance_dpo_loss(
    lm: torch.nn.Module,
    lm_ref: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    beta: float,
    prompt: str,
    response_chosen: str,
    response_rejected: str,
) -> torch.Tensor:
    """The DPO loss of one pair of responses, a scalar."""
    from cs336_alignment.preference.dpo_loss import per_instance_dpo_loss

    return per_instance_dpo_loss(lm, lm_ref, tokenizer, beta, prompt, response_chosen, response_rejected)
