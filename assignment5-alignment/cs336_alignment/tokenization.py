"""Prompts and responses as token ids, with a mask that says which tokens the policy wrote."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cs336_basics.command_line import UsageError


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the tokenizer's pad token, or of its end-of-sequence token if it has none.

    Padding stands behind the last token of a row, where neither causal attention nor a masked loss sees it.

    Raises:
        UsageError: it has neither.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    raise UsageError("the tokenizer has neither a pad token nor an end-of-sequence token; set tokenizer.pad_token")


def tokenize_prompt_and_output(
    prompt_strs: Sequence[str], output_strs: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Tensor]:
    """Tokenize prompts and outputs apart from each other, join them, and mark the outputs' tokens.

    No special token is added around or between them. Rows are padded on the right to the longest, and only then are
    the last column (for the inputs) and the first (for the labels) cut off: a shorter row keeps its last token in
    `input_ids`, followed by padding.

    Args:
        prompt_strs: one per row.
        output_strs: the response to each prompt.
        tokenizer: any Hugging Face tokenizer.

    Returns:
        For rows of at most `length` tokens, a dictionary of

        - "input_ids": int64 (batch, length - 1), all columns but the last;
        - "labels": int64 (batch, length - 1), all columns but the first: the token to predict at each position;
        - "response_mask": bool (batch, length - 1), True where the label is a token of the output.

    Raises:
        UsageError: there are no prompts, or not as many outputs.
    """
    if len(prompt_strs) != len(output_strs) or not prompt_strs:
        raise UsageError(
            f"got {len(prompt_strs)} prompts and {len(output_strs)} outputs; allowed is the same number, at least 1"
        )
    prompts = tokenizer(list(prompt_strs), add_special_tokens=False)["input_ids"]
    outputs = tokenizer(list(output_strs), add_special_tokens=False)["input_ids"]
    return join_prompt_and_output_ids(prompts, outputs, pad_token_id(tokenizer))


def join_prompt_and_output_ids(
    prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], pad_id: int
) -> dict[str, Tensor]:
    """`tokenize_prompt_and_output` of token ids: for responses whose ids are those that were sampled.

    Tokenizing a response's text anew need not give the ids that the policy chose, nor an end-of-sequence token.
    """
    lengths = [len(prompt) + len(output) for prompt, output in zip(prompts, outputs, strict=True)]
    ids = torch.full((len(lengths), max(1, *lengths)), pad_id, dtype=torch.long)
    is_output = torch.zeros(ids.shape, dtype=torch.bool)
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        ids[row, : lengths[row]] = torch.tensor([*prompt, *output], dtype=torch.long)
        is_output[row, len(prompt) : lengths[row]] = True
    return {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "response_mask": is_output[:, 1:]}
