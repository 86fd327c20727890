"""The default engine: our own decode loop over the forward pass of a Hugging Face model. It runs anywhere."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cs336_alignment.evaluation_mode import evaluation_mode
from cs336_alignment.rollouts.decoding import DecodeLoop, Response
from cs336_alignment.rollouts.drawing import seed_of
from cs336_alignment.rollouts.interface import Rollout, RolloutEngine, SamplingParameters, check_prompts
from cs336_alignment.rollouts.stop_strings import StopStrings, decode
from cs336_alignment.rollouts.weight_sync import copy_weights, unwrap
from cs336_basics.command_line import UsageError


class HFEngine(RolloutEngine):
    """Samples with a model of transformers, which may be the policy under training itself.

    The k-th response to a prompt depends on the weights, the prompt, the parameters and k alone: not on the other
    prompts, nor on the batch size, but for the rounding of differently shaped matrix products.

    Args:
        model: the model, on any device and of any type; not changed but by `load_weights`.
        tokenizer: its tokenizer.
        max_batch_size: the most responses drawn at once; memory grows with it.
        autocast: compute in this type, as the training does under autocast; None computes in the weights' own.
        progress: show a progress bar.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_batch_size: int = 256,
        autocast: torch.dtype | None = None,
        progress: bool = False,
    ) -> None:
        if max_batch_size < 1:
            raise UsageError(f"max_batch_size is {max_batch_size}; allowed are whole numbers from 1")
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch_size = max_batch_size
        self.autocast = autocast
        self.progress = progress
        self._device = model.get_input_embeddings().weight.device
        self._context_length = getattr(model.config, "max_position_embeddings", None)
        self._end_ids = end_token_ids(model, tokenizer)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], parameters: SamplingParameters) -> list[list[Rollout]]:
        responses = self._responses(prompts, parameters)
        vocab_size = self.model.get_output_embeddings().weight.shape[0]
        stop_strings = StopStrings(parameters.stop, self.tokenizer, vocab_size)
        loop = DecodeLoop(self.model, parameters, stop_strings, self._end_ids, seed_of(parameters))
        # Prompts of like length share a batch; the longest first, which needs the most memory.
        queue = sorted((response for group in responses for response in group), key=lambda r: -len(r.prompt_ids))
        with (
            evaluation_mode(self.model),  # also for the cache, which gradient checkpointing turns off in training
            torch.autocast(self._device.type, self.autocast, enabled=self.autocast is not None),
            tqdm(total=len(queue), desc="rollouts", unit="response", disable=not self.progress) as bar,
        ):
            for start in range(0, len(queue), self.max_batch_size):
                loop.run(queue[start : start + self.max_batch_size], bar.update)
        return [[self._rollout(response, parameters) for response in group] for group in responses]

    def load_weights(self, policy: nn.Module) -> None:
        if unwrap(policy) is not self.model:
            copy_weights(policy, self.model)

    def _responses(self, prompts: Sequence[str], parameters: SamplingParameters) -> list[list[Response]]:
        """What to draw; a prompt that comes again gets further samples, not the same ones."""
        seen: Counter[str] = Counter()
        groups = []
        for prompt, ids in zip(prompts, check_prompts(prompts, self.tokenizer, self._context_length), strict=True):
            room = parameters.max_tokens
            if self._context_length is not None:
                room = min(room, self._context_length - len(ids))
            numbers = range(seen[prompt], seen[prompt] + parameters.num_samples)
            groups.append([Response(prompt, ids, number, room) for number in numbers])
            seen[prompt] += parameters.num_samples
        return groups

    def _rollout(self, response: Response, parameters: SamplingParameters) -> Rollout:
        text = decode(self.tokenizer, response.token_ids)
        if response.stop is not None:
            text = text[: response.stop.end if parameters.include_stop else response.stop.start]
        log_probs = response.log_probs if parameters.log_probs else None
        return Rollout(response.prompt, text, response.token_ids, log_probs, response.finish_reason)


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a text, by the model's generation settings and by the tokenizer."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    return sorted({token_id for token_id in [*listed, tokenizer.eos_token_id] if token_id is not None})
