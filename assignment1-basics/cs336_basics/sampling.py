"""Choosing the next token from the model's logits: temperature, top-k and nucleus (top-p) sampling."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.model.functional import softmax, upcast


@dataclass(frozen=True)
class SamplingSettings:
    """How to sample; the filters apply in this order.

    Attributes:
        temperature: the logits are divided by it: below 1 sharpens, above 1 flattens, 0 always takes the likeliest.
        top_k: only the k likeliest tokens stay; None keeps all.
        top_p: of these, the fewest likeliest tokens stay whose probabilities reach this sum, the one that crosses it
            included (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751, equation 2); None and 1 keep all.

    Raises:
        UsageError: a setting is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise UsageError(f"temperature is {self.temperature}; allowed are finite numbers from 0 (greedy)")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}; allowed are whole numbers from 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}; allowed are numbers above 0, up to 1")


def next_token_distribution(
    logits: Float[Tensor, "batch vocab"], settings: SamplingSettings
) -> tuple[Float[Tensor, "batch candidates"], Int[Tensor, "batch candidates"] | None]:
    """The probabilities that the settings leave, for a temperature above 0.

    Returns:
        The candidates' probabilities, which sum to 1, and the candidates' token ids, likeliest first; None for the ids
        stands for the whole vocabulary in order.
    """
    logits, token_ids = upcast(logits), None
    # With the greatest logit at 0, no temperature, however low, makes the likeliest token's infinite.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / max(settings.temperature, torch.finfo(logits.dtype).tiny)
    top_p = None if settings.top_p == 1 else settings.top_p
    if settings.top_k is not None and settings.top_k < logits.shape[-1]:
        logits, token_ids = logits.topk(settings.top_k)
    elif top_p is not None:
        logits, token_ids = logits.sort(descending=True)
    probabilities = softmax(logits)
    if top_p is not None:
        # A token stays if those before it have not reached the sum yet: the crossing token does.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities, token_ids


def sample_next_token(
    logits: Float[Tensor, "batch vocab"], settings: SamplingSettings, generator: torch.Generator | None = None
) -> Int[Tensor, " batch"]:
    """Draw one token id per row.

    Args:
        logits: the model's scores of the next token.
        settings: temperature and filters.
        generator: the source of randomness, on the logits' device; None takes torch's global one.
    """
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities, token_ids = next_token_distribution(logits, settings)
    choice = torch.multinomial(probabilities, 1, generator=generator)
    return (choice if token_ids is None else token_ids.gather(-1, choice)).squeeze(-1)
