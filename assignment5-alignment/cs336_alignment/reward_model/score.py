"""Scores of responses under a reward model."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from cs336_alignment.preference.batches import padded_rows
from cs336_alignment.preference.pairs import encode_response
from cs336_alignment.reward_model.model import RewardModel
from cs336_alignment.tokenization import pad_token_id
from cs336_basics.command_line import UsageError


@torch.no_grad()
def score_responses(
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    batch_size: int = 32,
) -> list[float]:
    """The score of each response, as it is read in training: behind its prompt, ended by EOS.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        prompts: as they were put to the policy, one for each response.
        responses: texts.
        batch_size: texts per forward pass; those of like length go together.

    Raises:
        UsageError: there are not as many prompts as responses.
    """
    if len(prompts) != len(responses):
        raise UsageError(f"got {len(prompts)} prompts and {len(responses)} responses; allowed is the same number")
    texts = [encode_response(tokenizer, *pair) for pair in zip(prompts, responses, strict=True)]
    order = np.argsort([len(ids) for ids in texts], kind="stable")
    pad_id, device = pad_token_id(tokenizer), model.score.weight.device
    scores = np.zeros(len(texts))
    for start in range(0, len(texts), batch_size):
        places = order[start : start + batch_size]
        input_ids, lengths = padded_rows([texts[place] for place in places], pad_id)
        scores[places] = model(input_ids.to(device), lengths.to(device)).cpu().double().numpy()
    return scores.tolist()
