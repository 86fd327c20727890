"""Drawing tokens such that each response has a random stream of its own.

Whatever else is in the batch, the k-th response to a prompt is drawn with the same random numbers. One number per token
is enough: the drawn token is where the cumulated probabilities pass it (inversion).
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cs336_alignment.rollouts.interface import SamplingParameters
from cs336_basics.sampling import SamplingSettings, next_token_distribution


def uniform_numbers(seed: int, prompt: str, sample: int, count: int) -> Float[np.ndarray, " count"]:
    """The random numbers of one response, in [0, 1).

    Args:
        seed: of the whole call.
        prompt: the text that is continued.
        sample: number of the response among those to this prompt.
        count: how many numbers.
    """
    generator = np.random.Generator(np.random.Philox(key=_hash(seed, sample, prompt, 16)))
    # 23 bits: in float32 the product with any sum stays below that sum.
    return generator.integers(2**23, size=count, dtype=np.uint32) * 2.0**-23


def request_seeds(prompts: Sequence[str], parameters: SamplingParameters) -> list[int]:
    """For engines that take a seed per prompt: unlike ones, also for a prompt that comes again."""
    seed = seed_of(parameters)
    seen: Counter[str] = Counter()
    seeds = []
    for prompt in prompts:
        seeds.append(_hash(seed, seen[prompt], prompt, 7))  # room for the numbers of the samples that they are added to
        seen[prompt] += 1
    return seeds


def _hash(seed: int, number: int, prompt: str, size: int) -> int:
    text = f"{seed} {number} {prompt}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=size).digest(), "little")


def seed_of(parameters: SamplingParameters) -> int:
    """The seed asked for, or a fresh one."""
    return secrets.randbits(63) if parameters.seed is None else parameters.seed


def draw(
    logits: Float[Tensor, "rows vocab"], parameters: SamplingParameters, uniform: Float[Tensor, " rows"]
) -> Int[Tensor, " rows"]:
    """Draw one token id per row.

    Args:
        logits: the model's scores of the next token.
        parameters: temperature and top_p.
        uniform: one number from [0, 1) per row; unused for temperature 0.
    """
    if parameters.temperature == 0:
        return logits.argmax(dim=-1)
    settings = SamplingSettings(parameters.temperature, top_p=parameters.top_p)
    probabilities, token_ids = next_token_distribution(logits, settings)
    cumulated = probabilities.cumsum(dim=-1)
    # Up to the sum that rounding left, so that the number is always passed, and by a token of probability above 0.
    choice = torch.searchsorted(cumulated, uniform.unsqueeze(-1) * cumulated[:, -1:], right=True)
    return (choice if token_ids is None else token_ids.gather(-1, choice)).squeeze(-1)


def log_probs_of(logits: Float[Tensor, "rows vocab"], token_ids: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The log-probability of each row's token under the model itself, in nats."""
    logits = logits.float()
    return logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)
