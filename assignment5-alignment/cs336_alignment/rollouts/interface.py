"""What every rollout engine does: answer prompts with samples of the policy, and take the policy's newest weights."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from torch import nn

from cs336_basics.command_line import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FinishReason = Literal["stop", "length"]
_SHOWN = 60
"""Characters of a prompt in a message."""


@dataclass(frozen=True)
class SamplingParameters:
    """How to sample responses; the names are vLLM's.

    Attributes:
        max_tokens: the most tokens of one response, the end-of-text token included.
        min_tokens: no response ends before it has this many tokens: the end-of-text token cannot be drawn, and a stop
            string that is complete by then does not count.
        temperature: the logits are divided by it; 0 always takes the likeliest token.
        top_p: only the fewest likeliest tokens are drawn from whose probabilities reach this sum (nucleus sampling).
        num_samples: responses per prompt.
        stop: a response ends once its text holds one of these strings.
        include_stop: whether the text keeps the stop string that ended it.
        seed: of the draws; None draws differently each time.
        log_probs: whether to return the log-probability of each drawn token.

    Raises:
        UsageError: a value is out of range.
    """

    max_tokens: int = 256
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    num_samples: int = 1
    stop: tuple[str, ...] = ()
    include_stop: bool = True
    seed: int | None = None
    log_probs: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}; allowed are whole numbers from 1")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise UsageError(f"min_tokens is {self.min_tokens}; allowed are 0 to max_tokens, {self.max_tokens}")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise UsageError(f"temperature is {self.temperature}; allowed are finite numbers from 0 (greedy)")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}; allowed are numbers above 0, up to 1")
        if self.num_samples < 1:
            raise UsageError(f"num_samples is {self.num_samples}; allowed are whole numbers from 1")
        if isinstance(self.stop, str) or "" in self.stop:
            raise UsageError(f"stop is {self.stop!r}; allowed is a tuple of strings that are not empty")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}; allowed are whole numbers from 0 to {2**63 - 1}")


@dataclass(frozen=True)
class Rollout:
    """One response to one prompt.

    Attributes:
        prompt: the text that was continued.
        text: the response, without special tokens, cut exactly after the stop string that ended it (before it, if the
            parameters say so).
        token_ids: the tokens drawn, up to and with the one that completed the stop string or the end-of-text token.
            The text of the last one may go on after the stop string: a token that was drawn cannot be cut.
        log_probs: of each token, the log-probability that the model itself gives it, in nats: before temperature and
            top_p, so what `get_response_log_probs` computes for the same tokens; None unless asked for.
        finish_reason: "stop" after a stop string or the end-of-text token, "length" after `max_tokens` tokens or at
            the end of the model's context.
    """

    prompt: str
    text: str
    token_ids: list[int]
    log_probs: list[float] | None
    finish_reason: FinishReason


class RolloutEngine(ABC):
    """Samples responses; a context manager that gives memory and connections back at its end."""

    @abstractmethod
    def generate(self, prompts: Sequence[str], parameters: SamplingParameters) -> list[list[Rollout]]:
        """Sample `parameters.num_samples` responses to each prompt; with a seed, a repeated call gives them again.

        Args:
            prompts: the texts to continue. They are tokenized as they are: what starts a text in the tokenizer's
                convention (a beginning-of-text token) is added, no chat template.
            parameters: how to sample.

        Returns:
            For each prompt, in order, its responses.

        Raises:
            UsageError: a prompt has no tokens, or leaves no room for a response in the model's context.
        """

    @abstractmethod
    def load_weights(self, policy: nn.Module) -> None:
        """Answer with this policy's weights from now on; whatever was cached under the old ones is dropped.

        Args:
            policy: the trained model: plain, compiled, with LoRA layers, or in a wrapper of data parallelism or FSDP.
                For FSDP all ranks call this.
        """

    def close(self) -> None:  # noqa: B027 (most engines hold nothing to give back)
        """Give memory, processes and connections back; the engine cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_prompts(
    prompts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", context_length: int | None
) -> list[list[int]]:
    """The prompts' tokens.

    Args:
        prompts: the texts.
        tokenizer: adds what starts a text in its convention.
        context_length: the most tokens of prompt and response together; None is any number.

    Raises:
        UsageError: a prompt has no tokens, or leaves no room for a response.
    """
    token_ids: list[list[int]] = tokenizer(list(prompts)).input_ids if prompts else []
    for prompt, ids in zip(prompts, token_ids, strict=True):
        if not ids or (context_length is not None and len(ids) >= context_length):
            shown = repr(prompt if len(prompt) <= _SHOWN else prompt[:_SHOWN] + "…")
            allowed = "1 or more" if context_length is None else f"1 to {context_length - 1}"
            raise UsageError(f"the prompt {shown} has {len(ids)} tokens; allowed are {allowed}")
    return token_ids
