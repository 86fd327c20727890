"""Exchange models with Hugging Face: our standard model is, weight for weight, a `LlamaForCausalLM`.

An exported folder opens with `transformers.AutoModelForCausalLM.from_pretrained`, `AutoTokenizer.from_pretrained` and
vLLM; neither is needed to write or read one.

The one difference is the order of a head's dimensions. We rotate neighbors (2k, 2k+1), as RoPE's paper does; Llama in
Hugging Face's form rotates (k, k + d_head/2). Queries and keys enter attention only through their inner products, so
reordering the rows of both projections alike translates one form into the other exactly.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.hf_tokenizer import export_tokenizer
from cs336_basics.model import BasicsTransformerLM, TransformerConfig

_OUTER_NAMES = {
    "token_embeddings.weight": "model.embed_tokens.weight",
    "ln_final.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn.q_proj.weight": "self_attn.q_proj.weight",
    "attn.k_proj.weight": "self_attn.k_proj.weight",
    "attn.v_proj.weight": "self_attn.v_proj.weight",
    "attn.output_proj.weight": "self_attn.o_proj.weight",
    "ffn.w1.weight": "mlp.gate_proj.weight",
    "ffn.w2.weight": "mlp.down_proj.weight",
    "ffn.w3.weight": "mlp.up_proj.weight",
    "ln1.weight": "input_layernorm.weight",
    "ln2.weight": "post_attention_layernorm.weight",
}
_ROTATED = ("q_proj.weight", "k_proj.weight")


def _llama_names(config: TransformerConfig) -> dict[str, str]:
    """Our parameter names and Llama's for them; a tied head has no weight of its own."""
    names = {
        f"layers.{layer}.{ours}": f"model.layers.{layer}.{theirs}"
        for layer in range(config.num_layers)
        for ours, theirs in _LAYER_NAMES.items()
    }
    outer = {
        ours: theirs
        for ours, theirs in _OUTER_NAMES.items()
        if not (config.tie_embeddings and ours == "lm_head.weight")
    }
    return outer | names


def _to_halves(weight: Float[Tensor, "rows d_in"], num_heads: int) -> Float[Tensor, "rows d_in"]:
    """In each head, even rows first, then odd rows: from neighboring pairs to pairs half a head apart."""
    return weight.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _to_neighbors(weight: Float[Tensor, "rows d_in"], num_heads: int) -> Float[Tensor, "rows d_in"]:
    """The inverse of `_to_halves`."""
    return weight.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def llama_config(config: TransformerConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The contents of `config.json` for a model of this shape.

    Raises:
        UsageError: the shape is not Llama's.
    """
    for setting, needed in (("norm", "pre"), ("position", "rope"), ("ffn", "swiglu"), ("qk_norm", False)):
        if getattr(config, setting) != needed:
            raise UsageError(
                f"a model with {setting}={getattr(config, setting)!r} is not a Llama, which has {needed!r}"
            )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        # Readers before transformers 5 look for the first form, later ones for the second.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": str(dtype).removeprefix("torch."),
    }


def export_llama(
    model: BasicsTransformerLM, out_dir: str | os.PathLike, tokenizer_dir: str | os.PathLike | None = None
) -> Path:
    """Write `config.json`, `generation_config.json`, `model.safetensors` and the tokenizer's files to a folder.

    Args:
        model: a pre-norm model with RoPE and SwiGLU, without QK-norm; tied embeddings are fine.
        out_dir: the folder, made if it is missing; files of these names are replaced.
        tokenizer_dir: a folder a `Tokenizer` was saved to; None exports the model alone.

    Returns:
        The folder.

    Raises:
        UsageError: the model is not Llama-shaped, or the tokenizer has more tokens than the model.
    """
    out_dir = Path(out_dir)
    weights = model.state_dict()
    config = llama_config(model.config, model.token_embeddings.weight.dtype)
    generation_config: dict[str, Any] = {"do_sample": True}
    if tokenizer_dir is not None:
        eos_id = export_tokenizer(tokenizer_dir, out_dir, model.config.vocab_size, model.config.context_length)
        config["eos_token_id"] = generation_config["eos_token_id"] = eos_id
    tensors = {}
    for ours, theirs in _llama_names(model.config).items():
        weight = weights[ours].detach().cpu()
        if ours.endswith(_ROTATED):
            weight = _to_halves(weight, model.config.num_heads)
        tensors[theirs] = weight.contiguous()
    with atomic_write(out_dir / "model.safetensors") as file:
        file.write(safetensors.torch.save(tensors, metadata={"format": "pt"}))
    for name, values in (("generation_config.json", generation_config), ("config.json", config)):
        with atomic_write(out_dir / name, "w") as file:
            file.write(json.dumps(values, indent=2) + "\n")
    return out_dir


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path.parent} is no Hugging Face model folder: it has no {path.name}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from None


def _config_from_llama(config: dict[str, Any]) -> TransformerConfig:
    """Our configuration for a Llama's `config.json`; `UsageError` for what our model does not have."""
    if config.get("model_type") != "llama":
        raise UsageError(f"the model is of type {config.get('model_type')!r}; only 'llama' can be loaded")
    num_heads, d_model = config["num_attention_heads"], config["hidden_size"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    # Each setting with the one value that our model computes; a missing setting has that value by default.
    only = {
        "num_key_value_heads": num_heads,
        "head_dim": d_model // num_heads,
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
    }
    found = {name: config.get(name) for name in only}
    only["rope_type"], found["rope_type"] = "default", rope.get("rope_type", rope.get("type"))
    for name, needed in only.items():
        if found[name] is not None and found[name] != needed:
            raise UsageError(f"the Llama has {name} {found[name]!r}; only {needed!r} can be loaded")
    return TransformerConfig(
        vocab_size=config["vocab_size"],
        context_length=config.get("max_position_embeddings", 2048),
        d_model=d_model,
        num_layers=config["num_hidden_layers"],
        num_heads=num_heads,
        d_ff=config["intermediate_size"],
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        tie_embeddings=config.get("tie_word_embeddings", False),
        norm_eps=config.get("rms_norm_eps", 1e-6),
    )


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors`, or of the parts its index names."""
    index = folder / "model.safetensors.index.json"
    parts = sorted(set(_read_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for part in parts:
        if not (folder / part).is_file():
            raise UsageError(f"{folder} has no {part}; only weights in safetensors files can be loaded")
        try:
            tensors |= safetensors.torch.load_file(folder / part)
        except safetensors.SafetensorError as error:
            raise UsageError(f"{folder / part} is damaged: {error}") from None
    return tensors


def load_llama(folder: str | os.PathLike, device: torch.device | str = "cpu") -> BasicsTransformerLM:
    """Our model with the configuration and weights of a Llama checkpoint folder, in the stored data type.

    Args:
        folder: holds `config.json` and `model.safetensors` (or its parts and their index).
        device: where the model is made.

    Raises:
        UsageError: the folder is incomplete, or the Llama has what our model has not: grouped-query attention, biases,
            scaled rotary frequencies, an activation other than SiLU.
    """
    folder = Path(folder)
    settings = _read_json(folder / "config.json")
    try:
        config = _config_from_llama(settings)
    except KeyError as error:
        raise UsageError(f"{folder / 'config.json'} does not say {error.args[0]}") from None
    tensors = _read_tensors(folder)
    names = _llama_names(config)
    if missing := sorted(set(names.values()) - set(tensors)):
        raise UsageError(f"{folder} lacks {len(missing)} weights of the model, among them {missing[0]}")
    weights = {}
    for ours, theirs in names.items():
        weight = tensors.pop(theirs)
        weights[ours] = _to_neighbors(weight, config.num_heads) if ours.endswith(_ROTATED) else weight
    if config.tie_embeddings:
        weights["lm_head.weight"] = weights["token_embeddings.weight"]
    model = BasicsTransformerLM.from_config(config, device=device, dtype=weights["token_embeddings.weight"].dtype)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(f"the weights in {folder} do not have the shapes of its config.json: {error}") from None
    return model
