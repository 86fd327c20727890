"""Choosing a rollout engine by name, as the programs' flag `--engine` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch

from cs336_alignment.rollouts.interface import RolloutEngine
from cs336_basics.command_line import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from cs336_alignment.rollouts.vllm_engine import VLLMOptions

EngineName = Literal["hf", "vllm", "vllm-server"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


def make_engine(
    name: EngineName,
    *,
    model: str | Path,
    policy: "PreTrainedModel | None" = None,
    tokenizer: "PreTrainedTokenizerBase",
    device: str | torch.device = "auto",
    dtype: str = "float32",
    autocast: torch.dtype | None = None,
    max_batch_size: int = 256,
    vllm: "VLLMOptions | None" = None,
    server_url: str = "http://localhost:8000",
    progress: bool = False,
) -> RolloutEngine:
    """Make an engine that answers with the weights of `policy`, or of `model` if there is no policy.

    Args:
        name: which engine.
        model: the Hugging Face folder or name that the policy was made from; the engine vllm-server serves its own.
        policy: the bare model under training. The engine hf uses it in place if it is on `device`: its newest weights
            always answer. The others take its weights now, and then at each `load_weights`.
        tokenizer: the policy's.
        device: where the engine samples; "auto" is where the policy is.
        dtype: of the engine's own weights, where it has its own: "float32", "bfloat16" or "float16".
        autocast: for hf, the type of matrix products, as in training.
        max_batch_size: for hf, the most responses drawn at once.
        vllm: for vllm, how it runs; None is its defaults on `device`, in `dtype`.
        server_url: for vllm-server, where the server listens.
        progress: show a progress bar.

    Raises:
        UsageError: the name is unknown, or the engine, its device, its model or its server cannot be used.
    """
    if name == "hf":
        return _hf_engine(model, policy, tokenizer, device, dtype, autocast, max_batch_size, progress)
    if name == "vllm":
        from cs336_alignment.policy import resolve_model
        from cs336_alignment.rollouts.vllm_engine import VLLMEngine, VLLMOptions

        if policy is not None and str(device) == "auto":
            device = policy.device
        options = vllm or VLLMOptions(device=str(device), dtype=dtype)
        engine: RolloutEngine = VLLMEngine(resolve_model(model), tokenizer, options, progress)
    elif name == "vllm-server":
        from cs336_alignment.rollouts.vllm_server import VLLMServerEngine

        engine = VLLMServerEngine(server_url, tokenizer)
    else:
        raise UsageError(f"engine is {name!r}; allowed are {', '.join(ENGINES)}")
    if policy is not None:
        engine.load_weights(policy)
    return engine


def _hf_engine(
    model: str | Path,
    policy: "PreTrainedModel | None",
    tokenizer: "PreTrainedTokenizerBase",
    device: str | torch.device,
    dtype: str,
    autocast: torch.dtype | None,
    max_batch_size: int,
    progress: bool,
) -> RolloutEngine:
    from cs336_alignment.policy import load_policy
    from cs336_alignment.rollouts.hf_engine import HFEngine

    shares_policy = policy is not None and (str(device) == "auto" or torch.device(device) == policy.device)
    own = policy if shares_policy else load_policy(model, device, dtype)
    engine = HFEngine(own, tokenizer, max_batch_size, autocast, progress)
    if policy is not None and not shares_policy:
        engine.load_weights(policy)
    return engine
