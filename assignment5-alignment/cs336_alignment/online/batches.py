"""Rollouts as padded tensors."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cs336_alignment.online.collection import ScoredRollout
from cs336_alignment.policy_gradient.batch import RolloutBatch
from cs336_alignment.tokenization import join_prompt_and_output_ids, pad_token_id


def batch_of(
    rollouts: Sequence[ScoredRollout], weights: Float[Tensor, " rollouts"], tokenizer: PreTrainedTokenizerBase
) -> RolloutBatch:
    """Rollouts with the token ids that were sampled.

    Args:
        rollouts: one per row.
        weights: their advantages, or whatever their log-likelihoods are weighted by.
        tokenizer: reads prompts as the rollout engine does.
    """
    prompts = list({rollout.prompt: None for rollout in rollouts})
    prompt_ids = dict(zip(prompts, tokenizer(prompts)["input_ids"], strict=True))
    joined = join_prompt_and_output_ids(
        [prompt_ids[rollout.prompt] for rollout in rollouts],
        [rollout.token_ids for rollout in rollouts],
        pad_token_id(tokenizer),
    )
    return RolloutBatch(**joined, advantages=weights)


def share_of(batch: RolloutBatch, rows: Int[np.ndarray, " rows"], rank: int, world_size: int) -> Int[Tensor, " share"]:
    """The rows that a process computes, of a number that `world_size` divides, the longest first."""
    own = torch.from_numpy(np.split(rows, world_size)[rank])
    return own[longest_first(batch.response_mask[own])]


def longest_first(response_mask: Bool[Tensor, "rows seq"]) -> Int[Tensor, " rows"]:
    """The rows in the order in which they are cut into microbatches.

    Rows of like length then share one, pad little, and run out of memory at once or never.
    """
    columns_behind_the_last_token = response_mask.int().flip(-1).argmax(dim=-1)
    return torch.argsort(columns_behind_the_last_token, stable=True)
