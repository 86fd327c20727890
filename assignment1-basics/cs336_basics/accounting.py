"""What a model costs: parameters, floating-point operations and memory, part by part, from its configuration alone.

A product of an (m, n) and an (n, p) matrix counts 2·m·n·p operations; everything else a Transformer does is small
beside its matrix products and not counted. Attention scores are counted for all pairs of tokens, as is usual; an
attention function that skips the future does nearly half of that part.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import get_args

from cs336_basics.command_line import UsageError
from cs336_basics.model.config import FeedForwardKind, NormPlacement, PositionKind, TransformerConfig

BYTES_PER_VALUE = 4  # float32
GPT2 = TransformerConfig(vocab_size=50_257, context_length=1024, d_model=768, num_layers=12, num_heads=12)
PRESETS = {
    "default": TransformerConfig(),
    "gpt2-small": GPT2,
    "gpt2-medium": replace(GPT2, d_model=1024, num_layers=24, num_heads=16, d_ff=None),
    "gpt2-large": replace(GPT2, d_model=1280, num_layers=36, num_heads=20, d_ff=None),
    "gpt2-xl": replace(GPT2, d_model=1600, num_layers=48, num_heads=25, d_ff=None),
}
"""Our default, and GPT-2's sizes in our architecture (RMSNorm, RoPE, SwiGLU of the default width)."""


def _feed_forward_matrices(config: TransformerConfig) -> int:
    return 3 if config.ffn == "swiglu" else 2


def parameters(config: TransformerConfig) -> dict[str, int]:
    """The number of parameters of each part. A tied output head has none of its own."""
    layers, d_model = config.num_layers, config.d_model
    norms_per_layer = {"pre": 2, "post": 2, "none": 0}[config.norm]
    return {
        "token embeddings": config.vocab_size * d_model,
        "attention": layers * 4 * d_model**2,
        "feed-forward": layers * _feed_forward_matrices(config) * d_model * config.d_ff,
        "norms": layers * (norms_per_layer * d_model + 2 * config.qk_norm * config.d_head)
        + d_model * (config.norm == "pre"),
        "output head": 0 if config.tie_embeddings else config.vocab_size * d_model,
    }


def num_parameters(config: TransformerConfig) -> int:
    """The number of parameters, shared ones once."""
    return sum(parameters(config).values())


def forward_flops(config: TransformerConfig, context_length: int | None = None) -> dict[str, int]:
    """Operations per token of a forward pass over sequences of `context_length` tokens, part by part.

    Args:
        config: the model's shape.
        context_length: tokens per sequence; None takes the model's own context length.
    """
    length = config.context_length if context_length is None else context_length
    layers, d_model = config.num_layers, config.d_model
    return {
        "attention projections": layers * 4 * 2 * d_model**2,
        "attention scores": layers * 2 * length * d_model,
        "attention-weighted values": layers * 2 * length * d_model,
        "feed-forward": layers * _feed_forward_matrices(config) * 2 * d_model * config.d_ff,
        "output head": 2 * d_model * config.vocab_size,
    }


def forward_flops_per_token(config: TransformerConfig, context_length: int | None = None) -> int:
    """The sum of `forward_flops`."""
    return sum(forward_flops(config, context_length).values())


def training_flops_per_token(config: TransformerConfig, context_length: int | None = None) -> int:
    """Operations per token of a training step: each product of the forward pass needs two of its size backward, one for
    the gradient of each factor (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, section 2.1)."""
    return 3 * forward_flops_per_token(config, context_length)


def saved_activations(config: TransformerConfig) -> int:
    """Values per token that this package keeps for the backward pass in float32, on a CPU, without torch.compile.

    A layer keeps the inputs of its products and norms: the residual stream before and after attention, both normed
    streams, queries, keys and values as attention takes them, and its output: 8 · d_model with pre- or post-norm,
    6 · d_model without norms. One number per head is the log-sum-exp of the scores (no matrix of queries by keys is
    kept), one per norm the inverse root mean square. The feed-forward network keeps 3 · d_ff. QK-norm also keeps
    queries and keys as they were before. At the end stand the output head's input and the logits.
    """
    d_model, heads = config.d_model, config.num_heads
    per_layer = 6 * d_model + 3 * config.d_ff + heads
    if config.norm != "none":
        per_layer += 2 * (d_model + 1)
    if config.qk_norm:
        per_layer += 2 * (d_model + heads)
    # Pre-norm: the final norm's input, inverse root mean square and output. Otherwise only the residual stream's first
    # state (post-norm) or last state (no norms), which no layer above counts.
    outside = 2 * d_model + 1 if config.norm == "pre" else d_model
    return config.num_layers * per_layer + outside + config.vocab_size


def textbook_activations(config: TransformerConfig, context_length: int | None = None) -> int:
    """Values per token when every intermediate result is kept, attention matrices included.

    Per layer: two norms; queries, keys, values; scores and their softmax (heads · context length each); weighted values
    and output projection; the feed-forward network's hidden results and its output. Then the final norm and the logits.
    """
    length = config.context_length if context_length is None else context_length
    hidden = 4 if config.ffn == "swiglu" else 2
    norms = 0 if config.norm == "none" else 2
    per_layer = (norms + 6) * config.d_model + 2 * config.num_heads * length + hidden * config.d_ff
    return config.num_layers * per_layer + config.d_model * (config.norm == "pre") + config.vocab_size


def memory(config: TransformerConfig, batch_size: int, context_length: int | None = None) -> dict[str, int]:
    """Bytes of a training step in float32, by use.

    Args:
        config: the model's shape.
        batch_size: sequences per step.
        context_length: tokens per sequence; None takes the model's own context length.
    """
    length = config.context_length if context_length is None else context_length
    weights = BYTES_PER_VALUE * num_parameters(config)
    per_value = BYTES_PER_VALUE * batch_size * length
    return {
        "parameters": weights,
        "gradients": weights,
        "AdamW state": 2 * weights,
        "saved activations": per_value * saved_activations(config),
        "gradient of the logits": per_value * config.vocab_size,
    }


def account(name: str, config: TransformerConfig, batch_size: int) -> dict:
    """All counts of one configuration, as plain values."""
    tokens = batch_size * config.context_length
    return {
        "name": name,
        "config": config.to_dict(),
        "batch_size": batch_size,
        "parameters": parameters(config),
        "num_parameters": num_parameters(config),
        "forward_flops_per_token": forward_flops(config),
        "total_forward_flops_per_token": forward_flops_per_token(config),
        "total_training_flops_per_token": training_flops_per_token(config),
        "training_flops_per_step": training_flops_per_token(config) * tokens,
        "memory_bytes": memory(config, batch_size),
        "textbook_activation_bytes": BYTES_PER_VALUE * tokens * textbook_activations(config),
    }


def _rows(title: str, parts: dict[str, int], unit: float, decimals: int) -> list[str]:
    total = sum(parts.values())
    shown = [*parts.items(), ("total", total)]
    return [
        title,
        *(f"  {part:<28}{count / unit:>14,.{decimals}f}{100 * count / total:>8.1f} %" for part, count in shown),
        "",
    ]


def format_account(counts: dict) -> str:
    """The table that the command prints."""
    config = counts["config"]
    batch_size, context_length = counts["batch_size"], config["context_length"]
    lines = [f"{counts['name']}: " + ", ".join(f"{key} {value}" for key, value in config.items()), ""]
    lines += _rows("Parameters, millions", counts["parameters"], 1e6, 2)
    forward = counts["forward_flops_per_token"]
    lines += _rows(f"Forward pass, MFLOPs per token at context {context_length}", forward, 1e6, 2)
    training = {part: 3 * count for part, count in forward.items()}
    lines += _rows("Training, MFLOPs per token", training, 1e6, 2)
    lines += _rows(
        f"Memory of a training step in float32, MB, batch {batch_size} x {context_length} tokens",
        counts["memory_bytes"], 1e6, 1,
    )  # fmt: skip
    lines += [
        f"  Keeping every intermediate, attention matrices too, activations take "
        f"{counts['textbook_activation_bytes'] / 1e6:,.1f} MB.",
        f"  A step takes {counts['training_flops_per_step'] / 1e12:,.2f} TFLOPs.",
    ]
    return "\n".join(lines)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The training program's flags for the model; one that is not given leaves the preset's value."""
    for name, help_text in (
        ("vocab_size", "number of token ids"),
        ("d_model", "width of the residual stream"),
        ("num_layers", "number of Transformer blocks"),
        ("num_heads", "attention heads per block"),
        ("d_ff", "width of the feed-forward layer"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=argparse.SUPPRESS, help=f"{help_text}; default: the preset's"
        )
    parser.add_argument(
        "--context_len", dest="context_length", type=int, default=argparse.SUPPRESS,
        help="context length, in tokens; default: the preset's",
    )  # fmt: skip
    for name, kinds in (("norm", NormPlacement), ("position", PositionKind), ("ffn", FeedForwardKind)):
        parser.add_argument(
            f"--{name}", choices=get_args(kinds), default=argparse.SUPPRESS, help="default: the preset's"
        )
    for name in ("tie_embeddings", "qk_norm"):
        parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help="default: no")


def main(argv: Sequence[str] | None = None) -> None:
    """The command: print the counts of a preset, of all presets, or of the model that flags describe."""
    parser = argparse.ArgumentParser(
        description="Count a model's parameters, floating-point operations and memory.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--preset", choices=[*PRESETS, "all"], default="default", help="the model that flags change")
    _add_model_flags(parser)
    parser.add_argument("--batch_size", type=int, default=32, help="sequences per training step, for the memory")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of tables")
    arguments = parser.parse_args(argv)
    if arguments.batch_size < 1:
        raise UsageError(f"batch_size is {arguments.batch_size}; allowed is any whole number above 0")
    names = {field.name for field in fields(TransformerConfig)}
    changes = {name: value for name, value in vars(arguments).items() if name in names}
    if changes.keys() & {"d_model", "ffn"}:
        changes.setdefault("d_ff", None)  # the default width for the new shape
    chosen = list(PRESETS) if arguments.preset == "all" else [arguments.preset]
    counts = [account(name, replace(PRESETS[name], **changes), arguments.batch_size) for name in chosen]
    print(json.dumps(counts, indent=2) if arguments.json else "\n\n".join(map(format_account, counts)))
