"""Policies: causal language models in Hugging Face's form, loaded, given adapters, and saved."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cs336_alignment.lora import apply_lora, merged_state_dict
from cs336_alignment.training.config import DEFAULT_MODEL, SMOKE_MODEL, SMOKE_TUNED_MODEL, TUNED_MODEL
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device

if TYPE_CHECKING:
    from cs336_alignment.training.config import TrainingConfig


def resolve_model(model: str | os.PathLike) -> str:
    """The folder or name behind a `--model` flag; `default`, `default-sft` and their smaller forms `default-smoke` and
    `default-sft-smoke` are made here at their first use.

    Raises:
        UsageError: it looks like a folder, and is none.
    """
    if str(model) in (DEFAULT_MODEL, SMOKE_MODEL):
        from cs336_alignment.default_task.base_model import ensure_default_model

        return str(ensure_default_model(smoke=model == SMOKE_MODEL))
    if str(model) in (TUNED_MODEL, SMOKE_TUNED_MODEL):
        from cs336_alignment.default_task.tuned_model import ensure_tuned_model

        return str(ensure_tuned_model(smoke=model == SMOKE_TUNED_MODEL))
    if Path(model).exists() and not (Path(model) / "config.json").is_file():
        raise UsageError(f"model {model} is no Hugging Face model folder: it has no config.json")
    return str(model)


def weight_files(model: str | os.PathLike) -> list[tuple[str, int, int]]:
    """Name, size in bytes and time of change (ns) of each file of weights in a model's folder; none for a model of the
    hub. They tell a model from another that is put in its place."""
    files = sorted(Path(resolve_model(model)).glob("*.safetensors"))
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def load_policy(
    model: str | os.PathLike,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = torch.float32,
    *,
    attention: str = "sdpa",
) -> PreTrainedModel:
    """Load a causal language model, in evaluation mode.

    Args:
        model: as for `resolve_model`.
        device: as for `resolve_device`.
        dtype: of the weights, "float32", "bfloat16" or a torch type.
        attention: kernel; "sdpa", "eager" or "flash_attention_2" (which needs the package flash-attn).

    Raises:
        UsageError: the model, the device or the kernel is not there.
    """
    device = device if isinstance(device, torch.device) else resolve_device(device)
    dtype = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    name = resolve_model(model)
    try:
        policy = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, attn_implementation=attention)
    except (OSError, ImportError, ValueError) as error:
        raise UsageError(f"model {model} cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    return policy.to(device).eval()


def load_tokenizer(model: str | os.PathLike) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; one without a pad token pads with the end-of-sequence token.

    Raises:
        UsageError: there is none, or it has no end-of-sequence token.
    """
    name = resolve_model(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"the tokenizer of {model} cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    if tokenizer.eos_token_id is None:
        raise UsageError(f"the tokenizer of {model} has no end-of-sequence token; training needs one")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_trainable_policy(config: "TrainingConfig") -> PreTrainedModel:
    """The policy that a program's settings ask for, in training mode, with adapters if `lora_rank` says so.

    Raises:
        UsageError: the model, the device or the adapters' layers are not there.
    """
    policy = load_policy(config.model, config.device, config.dtype, attention=config.attention)
    if config.lora_rank:
        # Adapters start from random factors: the same for the same seed, wherever in a program they are made.
        torch.manual_seed(config.seed)
        apply_lora(policy, config.lora_rank, config.lora_alpha, config.lora_targets.split(","), config.lora_dropout)
    if config.gradient_checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
    return policy.train()


def save_policy(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike,
    weights: dict[str, Tensor] | None = None,
) -> Path:
    """Write a policy and its tokenizer as a Hugging Face folder, whole or not at all; adapters are merged in.

    `load_policy`, transformers and vLLM open it. A folder of that name is replaced.

    Args:
        policy: the model.
        tokenizer: its own.
        folder: where to.
        weights: by the names of the plain model, of a policy whose own are divided among processes; None for its own.

    Returns:
        The folder.
    """
    folder = Path(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        policy.save_pretrained(unfinished, state_dict=weights or merged_state_dict(policy))
        tokenizer.save_pretrained(unfinished)
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(unfinished, folder)
    finally:
        for left in (unfinished, replaced):
            shutil.rmtree(left, ignore_errors=True)
    return folder
