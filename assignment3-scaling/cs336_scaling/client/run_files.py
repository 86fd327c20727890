"""Runs to submit, from a JSON file or from flags whose defaults make one small, sensible run."""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cs336_basics.command_line import UsageError
from cs336_scaling.compute import training_flops_per_token
from cs336_scaling.schemas.edition_2025 import BATCH_SIZES, LossQuery, OutOfRangeError
from cs336_scaling.schemas.edition_2026 import AdamWConfig, ArchitectureConfig, LRScheduler, TrainingConfig
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH

Model = TypeVar("Model", bound=BaseModel)

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556): about the compute-optimal ratio."""
FEED_FORWARD_RATIO = 8 / 3
MOST_TOKENS = 10**13


def add_2026_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that describe runs of the Spring 2026 edition; those that take several values make all combinations."""
    group = parser.add_argument_group("runs of the 2026 edition; several values make all combinations")
    many = {"nargs": "+", "metavar": "X"}
    group.add_argument("--hidden_size", type=int, default=[256], help="widths of the residual stream", **many)
    group.add_argument("--num_hidden_layers", type=int, default=[4], help="Transformer blocks", **many)
    group.add_argument("--head_dim", type=int, default=64, help="width of an attention head; divides hidden_size")
    group.add_argument(
        "--intermediate_size", type=int, default=argparse.SUPPRESS,
        help="width of the feed-forward layer; default: 8/3 of hidden_size, to a multiple of 16",
    )  # fmt: skip
    group.add_argument("--vocab_size", type=int, default=32_000, help="token ids")
    group.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="of the computation")
    group.add_argument("--tie_word_embeddings", action="store_true", help="one matrix for embedding and output")
    group.add_argument("--peak_lr", type=float, default=[1e-3], help="learning rates after the warm-up (AdamW)", **many)
    group.add_argument(
        "--train_batch_size", type=int, default=[64], help=f"sequences of {SEQUENCE_LENGTH} tokens a step", **many
    )
    group.add_argument("--n_evals", type=int, default=10, help="validations, evenly spaced, the last at the end")
    amount = group.add_mutually_exclusive_group()
    amount.add_argument(
        "--total_train_tokens", type=int, default=argparse.SUPPRESS,
        help=f"tokens to train on; default: about {TOKENS_PER_PARAMETER} per parameter, in whole steps", **many,
    )  # fmt: skip
    amount.add_argument(
        "--flops", type=float, default=argparse.SUPPRESS,
        help="training FLOPs in place of tokens, met in whole steps: several sizes make an isoFLOP profile", **many,
    )  # fmt: skip
    group.add_argument("--max_runtime_seconds", type=float, default=600.0, help="wall clock to reserve, in seconds")
    group.add_argument("--model_seed", type=int, default=0, help="of the initial weights")


def add_2025_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that describe runs of the Spring 2025 edition; several values make all combinations."""
    group = parser.add_argument_group("runs of the 2025 edition; several values make all combinations")
    many = {"nargs": "+", "metavar": "X"}
    group.add_argument("--d_model", type=int, default=[256], help="widths of the residual stream, 64 to 1024", **many)
    group.add_argument("--num_layers", type=int, default=[4], help="Transformer blocks, 2 to 24", **many)
    group.add_argument("--num_heads", type=int, default=[4], help="attention heads, 2 to 16", **many)
    group.add_argument("--batch_size", type=int, default=[BATCH_SIZES[0]], help="sequences a step, 128 or 256", **many)
    group.add_argument("--learning_rate", type=float, default=[1e-3], help="1e-4 to 1e-3", **many)
    group.add_argument(
        "--train_flops", type=float, default=[1e13], help="1e13, 3e13, 6e13, 1e14 and so on to 1e18", **many
    )


def configs_from_flags(flags: argparse.Namespace, kind: type[TrainingConfig] = TrainingConfig) -> list[TrainingConfig]:
    """The runs that the 2026 flags describe; of `kind` TargetConfig, they may take as long as the target.

    Raises:
        UsageError: a value is not allowed.
    """
    return [_config(argparse.Namespace(**values), kind) for values in _combinations(vars(flags))]


def queries_from_flags(flags: argparse.Namespace) -> list[LossQuery]:
    """The runs that the 2025 flags describe.

    Raises:
        UsageError: a value is not allowed.
    """
    described = {name: getattr(flags, name) for name in LossQuery.model_fields}
    return [_checked(_validated(LossQuery, values)) for values in _combinations(described)]


def _combinations(flags: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One dictionary of single values for each combination of the listed ones."""
    listed = {name: values for name, values in flags.items() if isinstance(values, list)}
    for chosen in itertools.product(*listed.values()):
        yield flags | dict(zip(listed, chosen, strict=True))


def _config(flags: argparse.Namespace, kind: type[TrainingConfig]) -> TrainingConfig:
    hidden_size, head_dim, per_step = flags.hidden_size, flags.head_dim, SEQUENCE_LENGTH * flags.train_batch_size
    if head_dim < 1 or hidden_size % head_dim:
        raise UsageError(f"hidden_size {hidden_size} is no multiple of head_dim {head_dim}; it must be")
    heads = hidden_size // head_dim
    architecture = _validated(
        ArchitectureConfig,
        {
            "head_dim": head_dim,
            "hidden_size": hidden_size,
            "intermediate_size": getattr(flags, "intermediate_size", 16 * round(FEED_FORWARD_RATIO * hidden_size / 16)),
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "num_hidden_layers": flags.num_hidden_layers,
            "vocab_size": flags.vocab_size,
            "dtype": flags.dtype,
            "tie_word_embeddings": flags.tie_word_embeddings,
        },
    )
    if per_step < 1 or flags.n_evals < 1:
        raise UsageError(
            f"train_batch_size is {flags.train_batch_size} and n_evals {flags.n_evals}; both must be at least 1"
        )
    tokens = getattr(flags, "total_train_tokens", None)
    if tokens is None:
        flops = getattr(flags, "flops", None)
        wanted = TOKENS_PER_PARAMETER * architecture.num_parameters
        if flops is not None:
            wanted = flops / training_flops_per_token(architecture)
        if not 0 < wanted < MOST_TOKENS:
            raise UsageError(f"flops is {flops}; allowed is what pays for up to {MOST_TOKENS:.0e} tokens")
        tokens = max(1, round(wanted / (per_step * flags.n_evals))) * per_step * flags.n_evals
    optimizer = AdamWConfig(lr_scheduler=_validated(LRScheduler, {"peak_value": flags.peak_lr}))
    return _validated(
        kind,
        {
            "architecture_config": architecture,
            "optimizer_config": optimizer,
            "train_batch_size": flags.train_batch_size,
            "n_evals": flags.n_evals,
            "total_train_tokens": tokens,
            "max_runtime_seconds": flags.max_runtime_seconds,
            "model_seed": flags.model_seed,
        },
    )


def read_configs(path: Path, kind: type[TrainingConfig] = TrainingConfig) -> list[TrainingConfig]:
    """The runs of a JSON file: one configuration, a list of them, or objects that hold one as `training_config`.

    Of `kind` TargetConfig, they may take as long as the target.

    Raises:
        UsageError: no such file, no JSON, or a value is not allowed.
    """
    return [
        _validated(kind, entry.get("training_config", entry), f"run {number} of {path}")
        for number, entry in enumerate(_entries(path), start=1)
    ]


def read_queries(path: Path) -> list[LossQuery]:
    """The runs of a JSON file for the 2025 edition: one query, or a list of them.

    Raises:
        UsageError: no such file, no JSON, or a value is not allowed.
    """
    return [
        _checked(_validated(LossQuery, entry, f"run {number} of {path}"))
        for number, entry in enumerate(_entries(path), start=1)
    ]


def _entries(path: Path) -> Sequence[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path} holds no runs; allowed is one JSON object, or a list of them")
    return entries


def _validated(kind: type[Model], values: dict[str, Any], where: str = "") -> Model:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"] if step not in ("adamw", "sgd"))
        message = first["msg"].removeprefix("Value error, ")
        given = first["input"]
        told = "" if isinstance(given, dict | BaseModel) else f", got {given!r}"
        raise UsageError(": ".join(part for part in (where, place, message) if part) + told) from None


def _checked(query: LossQuery) -> LossQuery:
    try:
        return query.check_ranges()
    except OutOfRangeError as error:
        raise UsageError(str(error)) from None
