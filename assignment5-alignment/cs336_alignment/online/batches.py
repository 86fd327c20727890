"""Rollouts as padded tensors."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cs336_alignment.online.collection import ScoredRollout
from cs336_alignment.policy_gradient.batch import RolloutBatch
from cs336_alignment.tokenization import join_prompt_and_output_ids, pad_token_id
from cs336_alignment.training.processes import Processes


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


def rows_of_updates(
    number: int, batch_size: int, epochs: int, seed: Sequence[int]
) -> Iterator[Int[np.ndarray, " train_batch"]]:
    """The rows of each update of a step.

    Args:
        number: rows that there are. Every epoch takes each of them once, in an order of its own.
        batch_size: rows of an update; the last one of an epoch takes what is left.
        epochs: how many.
        seed: numbers that say of which run and step.
    """
    for epoch in range(epochs):
        rows = np.random.default_rng([*seed, epoch]).permutation(number)
        yield from np.split(rows, range(batch_size, number, batch_size))


def share_of(batch: RolloutBatch, rows: Int[np.ndarray, " rows"], processes: Processes) -> Int[Tensor, " share"]:
    """The rows that this process computes, of a number that the processes divide evenly, the longest first."""
    own = torch.from_numpy(processes.share(rows))
    return own[longest_first(batch.response_mask[own])]


def longest_first(response_mask: Bool[Tensor, "rows seq"]) -> Int[Tensor, " rows"]:
    """The rows in the order in which they are cut into microbatches.

    Rows of like length then share one, pad little, and run out of memory at once or never.
    """
    columns_behind_the_last_token = response_mask.int().flip(-1).argmax(dim=-1)
    return torch.argsort(columns_behind_the_last_token, stable=True)
