"""What supervised fine-tuning learns from, as token ids: inputs, labels, and which labels count."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cs336_alignment.sft.packed import PackedDocuments
from cs336_alignment.tokenization import join_prompt_and_output_ids, pad_token_id
from cs336_basics.command_line import UsageError


@dataclass(frozen=True)
class TokenBatch:
    """Some examples.

    Attributes:
        input_ids: padded on the right.
        labels: the next token at each place.
        response_mask: whether it counts.
    """

    input_ids: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]
    response_mask: Bool[Tensor, "batch seq"]

    def to(self, device: torch.device) -> "TokenBatch":
        """The same on a device."""
        return TokenBatch(self.input_ids.to(device), self.labels.to(device), self.response_mask.to(device))


class TokenExamples(ABC):
    """Examples by number."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def lengths(self, indices: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        """Tokens of some examples: those of like length go well together."""

    @abstractmethod
    def num_targets(self, indices: Int[np.ndarray, " batch"]) -> int:
        """How many labels count in some examples."""

    @abstractmethod
    def batch(self, indices: Int[np.ndarray, " batch"]) -> TokenBatch:
        """Some examples as tensors."""


class PackedExamples(TokenExamples):
    """Pieces of packed documents, of which every token counts."""

    def __init__(self, pieces: PackedDocuments) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def lengths(self, indices: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        return np.full(len(indices), self.pieces.seq_length)

    def num_targets(self, indices: Int[np.ndarray, " batch"]) -> int:
        return len(indices) * self.pieces.seq_length

    def batch(self, indices: Int[np.ndarray, " batch"]) -> TokenBatch:
        items = [self.pieces[int(index)] for index in indices]
        labels = torch.stack([item["labels"] for item in items])
        return TokenBatch(torch.stack([item["input_ids"] for item in items]), labels, torch.ones_like(labels).bool())


class PromptMaskedExamples(TokenExamples):
    """Prompts and responses, of which only the responses' tokens and the end-of-sequence token after them count.

    Prompts are tokenized as the rollout engines do it, with what the tokenizer puts at the start of a text; responses
    apart from them and without special tokens.

    Args:
        tokenizer: any Hugging Face tokenizer with an end-of-sequence token.
        prompts, responses: as many of each.
        max_length: longer pairs are left out, end-of-sequence token included.

    Attributes:
        num_left_out: how many pairs were.

    Raises:
        UsageError: all of them were.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str],
        responses: Sequence[str],
        max_length: int,
    ) -> None:
        prompt_ids = tokenizer(list(prompts))["input_ids"] if prompts else []
        response_ids = tokenizer(list(responses), add_special_tokens=False)["input_ids"] if responses else []
        end = tokenizer.eos_token_id
        pairs = [(prompt, [*response, end]) for prompt, response in zip(prompt_ids, response_ids, strict=True)]
        kept = [(prompt, response) for prompt, response in pairs if len(prompt) + len(response) <= max_length]
        self.num_left_out = len(pairs) - len(kept)
        if not kept:
            raise UsageError(
                f"none of {len(pairs)} prompts and responses is at most max_length {max_length} tokens long; "
                "allowed are greater lengths"
            )
        self.prompts = [prompt for prompt, _ in kept]
        self.responses = [response for _, response in kept]
        self.pad_id = pad_token_id(tokenizer)

    def __len__(self) -> int:
        return len(self.prompts)

    def lengths(self, indices: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        return np.array([len(self.prompts[index]) + len(self.responses[index]) for index in indices])

    def num_targets(self, indices: Int[np.ndarray, " batch"]) -> int:
        # Nothing predicts the first token, which is a response's if there is no prompt.
        return sum(len(self.responses[index]) - (not self.prompts[index]) for index in indices)

    def batch(self, indices: Int[np.ndarray, " batch"]) -> TokenBatch:
        prompts, responses = ([ids[index] for index in indices] for ids in (self.prompts, self.responses))
        return TokenBatch(**join_prompt_and_output_ids(prompts, responses, self.pad_id))
