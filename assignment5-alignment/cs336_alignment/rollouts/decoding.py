"""The decode loop: one batch of responses, from the prompts' forward pass to the last token.

Prompts are padded on the left, so that all rows draw their next token in the same column; padding is masked, and
positions count from each prompt's own first token. A prompt is read once, whatever the number of its responses. A
response that has ended leaves the batch at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from cs336_alignment.rollouts.drawing import draw, log_probs_of, uniform_numbers
from cs336_alignment.rollouts.interface import FinishReason, SamplingParameters
from cs336_alignment.rollouts.kv_cache import RolloutCache
from cs336_alignment.rollouts.stop_strings import StopMatch, StopStrings


@dataclass
class Response:
    """A response to be drawn.

    Attributes:
        prompt: the text that is continued.
        prompt_ids: its tokens.
        sample: number of the response among those to the same prompt.
        max_tokens: the most tokens that may be drawn.
        token_ids, log_probs, stop, finish_reason: the result.
    """

    prompt: str
    prompt_ids: list[int]
    sample: int
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    stop: StopMatch | None = None
    finish_reason: FinishReason = "length"


class DecodeLoop:
    """Draws the responses of one batch after another.

    Args:
        model: any causal language model of transformers that takes a cache.
        parameters: how to sample.
        stop_strings: their finder.
        end_ids: the tokens that end a text.
        seed: of all draws.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: SamplingParameters,
        stop_strings: StopStrings,
        end_ids: list[int],
        seed: int,
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.stop_strings = stop_strings
        self.end_ids = end_ids
        self.seed = seed
        self.device = model.get_input_embeddings().weight.device

    def run(self, responses: list[Response], on_finish: Callable[[int], None]) -> None:
        """Draw all tokens of these responses.

        Args:
            responses: what to draw; filled in place.
            on_finish: called with the number of responses that have just ended.
        """
        batch = _Batch(self.model, responses, self.device)
        logits = batch.read_prompts()
        steps = max(response.max_tokens for response in responses)
        uniform = self._uniform_numbers(responses, steps)
        tokens = np.empty((len(responses), steps), dtype=np.int64)
        log_probs = np.empty((len(responses), steps), dtype=np.float32)
        limits = np.array([response.max_tokens for response in responses])
        end_ids = torch.tensor(self.end_ids, device=self.device)
        for step in range(steps):
            allowed = logits.index_fill(-1, end_ids, -torch.inf) if step < self.parameters.min_tokens else logits
            drawn = draw(allowed, self.parameters, uniform[batch.live_on_device, step])
            live, newest = batch.live, drawn.cpu().numpy()
            tokens[live, step] = newest
            if self.parameters.log_probs:
                log_probs[live, step] = log_probs_of(logits, drawn).cpu().numpy()

            is_over = limits[live] == step + 1
            is_end = np.isin(newest, self.end_ids)
            if step >= self.parameters.min_tokens:
                for row in np.flatnonzero(self.stop_strings.may_complete(newest) & ~is_end):
                    response = responses[live[row]]
                    response.stop = self.stop_strings.find(tokens[live[row], : step + 1].tolist())
                    is_over[row] |= response.stop is not None
            is_over |= is_end
            for row in np.flatnonzero(is_over):
                response = responses[live[row]]
                response.token_ids = tokens[live[row], : step + 1].tolist()
                response.log_probs = log_probs[live[row], : step + 1].tolist()
                response.finish_reason = "stop" if is_end[row] or response.stop else "length"
            if is_over.any():
                on_finish(int(is_over.sum()))
                if is_over.all():
                    return
                drawn = batch.drop(is_over, drawn)
            logits = batch.read(drawn)

    def _uniform_numbers(self, responses: list[Response], steps: int) -> Float[Tensor, "rows steps"]:
        if self.parameters.temperature == 0:
            return torch.zeros(1, 1, device=self.device).expand(len(responses), steps)
        rows = [uniform_numbers(self.seed, response.prompt, response.sample, steps) for response in responses]
        return torch.tensor(np.array(rows, dtype=np.float32), device=self.device)


class _Batch:
    """The rows of a batch and what the model has read of them.

    Attributes:
        live: for each row, the number of the response that it draws.
        live_on_device: the same on the model's device.
    """

    def __init__(self, model: PreTrainedModel, responses: list[Response], device: torch.device) -> None:
        self.model = model
        self.device = device
        self.cache = RolloutCache(model.config)
        unique: dict[str, list[int]] = {response.prompt: response.prompt_ids for response in responses}
        row_of = {prompt: row for row, prompt in enumerate(unique)}
        self._prompts = list(unique.values())
        self._prompt_rows = torch.tensor([row_of[response.prompt] for response in responses], device=device)
        self.live = np.arange(len(responses))
        self.live_on_device = torch.arange(len(responses), device=device)
        self._mask: Int[Tensor, "rows columns"] | None = None
        self._next_positions: Int[Tensor, "rows 1"] | None = None

    def read_prompts(self) -> Float[Tensor, "rows vocab"]:
        """Read each prompt once; returns the logits of each response's first token."""
        columns = max(map(len, self._prompts))
        padding = torch.tensor([columns - len(prompt) for prompt in self._prompts], device=self.device).unsqueeze(-1)
        token_ids = torch.tensor([[0] * (columns - len(prompt)) + prompt for prompt in self._prompts])
        positions = torch.arange(columns, device=self.device) - padding
        self._mask = (positions >= 0).long() if padding.any() else None
        logits = self._forward(token_ids.to(self.device), positions.clamp(min=0))
        rows = self._prompt_rows
        self.cache.expand_rows(rows)
        self._mask = None if self._mask is None else self._mask[rows]
        self._next_positions = (columns - padding)[rows]
        return logits[rows]

    def read(self, token_ids: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Read each row's newest token; returns the logits of the next one."""
        if self._mask is not None:
            self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        logits = self._forward(token_ids.unsqueeze(-1), self._next_positions)
        self._next_positions = self._next_positions + 1
        return logits

    def drop(self, is_over: np.ndarray, token_ids: Int[Tensor, " rows"]) -> Int[Tensor, " left"]:
        """Take rows out of the batch: live rows from its end move into their places.

        Args:
            is_over: for each row, whether it leaves.
            token_ids: each row's newest token; returned for the rows that stay.
        """
        rows = int((~is_over).sum())
        order = np.arange(rows)
        targets = np.flatnonzero(is_over[:rows])
        sources = rows + np.flatnonzero(~is_over[rows:])
        order[targets] = sources
        self.live = self.live[order]
        indices = torch.from_numpy(order).to(self.device)
        self.live_on_device = self.live_on_device[indices]
        self.cache.move_rows(torch.from_numpy(sources).to(self.device), indices.new_tensor(targets), rows)
        self._mask = None if self._mask is None else self._mask[indices]
        self._next_positions = self._next_positions[indices]
        return token_ids[indices]

    def _forward(self, token_ids: Int[Tensor, "rows new"], positions: Int[Tensor, "rows new"]) -> Tensor:
        return self.model(
            input_ids=token_ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
