"""The settings of a training run: one dataclass whose field names are the flags of the training program."""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

from cs336_basics.command_line import UsageError
from cs336_basics.model.config import FeedForwardKind, NormPlacement, PositionKind, TransformerConfig
from cs336_basics.settings import Settings, setting

# The flag on the left sets the field of TransformerConfig on the right.
MODEL_FIELDS = {
    "vocab_size": "vocab_size",
    "context_len": "context_length",
    "d_model": "d_model",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "d_ff": "d_ff",
    "rope_theta": "rope_theta",
    "norm": "norm",
    "position": "position",
    "ffn": "ffn",
    "tie_embeddings": "tie_embeddings",
    "qk_norm": "qk_norm",
}


@dataclass(frozen=True)
class TrainConfig(Settings):
    """All settings of a training run; each field's help text is its documentation (`--help` prints them all).

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    data_dir: str | None = setting(
        None, "folder with train.dat and valid.dat (made by scripts/tokenize_test.py)", type=str,
        shown="data, made from the default text if it is missing",
    )  # fmt: skip
    tokenizer_dir: str = setting("tokenizer", "folder of the tokenizer that made the data, for the report's samples")

    vocab_size: int | None = setting(None, "number of token ids", type=int, shown="what the data's .json file says")
    context_len: int = setting(256, "context length, in tokens")
    d_model: int = setting(512, "width of the residual stream")
    num_layers: int = setting(4, "number of Transformer blocks")
    num_heads: int = setting(16, "attention heads per block; must divide d_model")
    d_ff: int | None = setting(
        None, "width of the feed-forward layer", type=int, shown="8/3 d_model, to a multiple of 64 (silu: 3/2 of that)"
    )
    rope_theta: float = setting(10_000.0, "base of the rotary position frequencies")
    norm: str = setting("pre", "placement of RMSNorm", choices=get_args(NormPlacement))
    position: str = setting("rope", "position information", choices=get_args(PositionKind))
    ffn: str = setting("swiglu", "kind of feed-forward layer", choices=get_args(FeedForwardKind))
    tie_embeddings: bool = setting(False, "share the input embedding with the output layer")
    qk_norm: bool = setting(False, "normalize queries and keys before attention")

    batch_size: int = setting(8, "sequences per optimizer step")
    gradient_accumulation_steps: int = setting(1, "parts a batch is split into, to save memory; must divide batch_size")
    train_steps: int = setting(5000, "optimizer steps of the whole run")
    max_minutes: float | None = setting(
        None, "stop after so many minutes of training, time before resuming included", type=float, shown="no limit"
    )
    max_lr: float = setting(1e-3, "learning rate at the end of the warm-up")
    min_lr: float | None = setting(None, "learning rate at the end of the run", type=float, shown="a tenth of max_lr")
    warm_up_it: int | None = setting(
        None, "steps of linear warm-up", type=int, shown="a twentieth of train_steps, at most 500"
    )
    weight_decay: float = setting(0.1, "AdamW's decay of matrices (gains of norms are not decayed)")
    beta1: float = setting(0.9, "AdamW's decay of the first moment")
    beta2: float = setting(0.95, "AdamW's decay of the second moment")
    eps: float = setting(1e-8, "AdamW's addend to the denominator")
    clip_grad_norm: float = setting(1.0, "largest global L2 norm of the gradient; 0 for no clipping")
    seed: int = setting(0, "seed of the initial weights and of the data order")

    device: str = setting("auto", "where to train: auto, cuda, cuda:N, mps or cpu")
    dtype: str = setting("float32", "type of matrix products (bfloat16: autocast)", choices=("float32", "bfloat16"))
    compile: bool = setting(False, "compile the model with torch.compile")

    log_intervals: int = setting(10, "steps between two log entries")
    val_interval: int = setting(100, "steps between two validations")
    val_batches: int = setting(8, "batches per validation, always the same, spread over the validation data")
    save_intervals: int = setting(1000, "steps between two checkpoints")
    keep_checkpoints: int = setting(0, "numbered checkpoints of this run to keep, the newest ones; 0 for all")
    save_ckp_path: str = setting("checkpoints", "folder for checkpoints")
    resume_ckp: str | None = setting(
        None, "go on from this checkpoint, or from the `latest` in save_ckp_path, with the settings stored in it",
        type=str, shown="a fresh run",
    )  # fmt: skip
    run_dir: str | None = setting(
        None, "folder for metrics.jsonl, config.json, curves.png and report.html", type=str,
        shown="runs/ and the run's name or time",
    )  # fmt: skip
    wandb_project: str | None = setting(
        None, "log to this Weights & Biases project; offline where there is no key or network", type=str, shown="none"
    )
    wandb_run_name: str | None = setting(None, "name of the run", type=str, shown="that of run_dir")
    no_wandb: bool = setting(False, "do not log to Weights & Biases, whatever the other flags say")

    def __post_init__(self) -> None:
        self.check_types()
        if self.warm_up_it is None:
            object.__setattr__(self, "warm_up_it", min(500, self.train_steps // 20))
        if self.min_lr is None:
            object.__setattr__(self, "min_lr", self.max_lr / 10)
        for name in (
            "batch_size", "gradient_accumulation_steps", "train_steps", "log_intervals", "val_interval", "val_batches",
            "save_intervals", "context_len",
        ):  # fmt: skip
            self.check_range(name, 1, math.inf)
        for name in ("warm_up_it", "keep_checkpoints", "max_lr", "min_lr", "weight_decay", "clip_grad_norm"):
            self.check_range(name, 0, math.inf)
        self.check_range("eps", 0, math.inf)
        self.check_range("seed", 0, 2**63, below=True)
        for name in ("beta1", "beta2"):
            self.check_range(name, 0, 1, below=True)
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise UsageError(f"max_minutes is {self.max_minutes}; allowed is any number above 0")
        if self.batch_size % self.gradient_accumulation_steps:
            raise UsageError(
                f"batch_size {self.batch_size} cannot be split into gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps} equal parts"
            )
        if self.min_lr > self.max_lr:
            raise UsageError(f"min_lr {self.min_lr} is above max_lr {self.max_lr}")
        self.model_config(vocab_size=1)

    def model_config(self, vocab_size: int) -> TransformerConfig:
        """The model's shape; `vocab_size` stands in where the setting is None."""
        values = {name: getattr(self, flag) for flag, name in MODEL_FIELDS.items()}
        if self.vocab_size is None:
            values["vocab_size"] = vocab_size
        return TransformerConfig(**values)

    @classmethod
    def inherited(cls, stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """What a resumed run takes over from its checkpoint's settings, given those that the user gave.

        A `wandb_project` given anew ends a stored `no_wandb`.
        """
        kept = {spec.name: stored[spec.name] for spec in fields(cls) if spec.name in stored}
        return {**kept, "no_wandb": False} if "wandb_project" in given else kept


ConfigClass = TypeVar("ConfigClass", bound=TrainConfig)


def build_parser(config_class: type[TrainConfig] = TrainConfig) -> argparse.ArgumentParser:
    """The command line; a flag that is not given leaves no entry, so that a resumed run can tell.

    Args:
        config_class: `TrainConfig`, or a dataclass that adds fields to it.
    """
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a Transformer language model on tokenized text.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    config_class.add_flags(parser)
    return parser


def resumed_config(
    stored: dict[str, Any],
    model_config: dict[str, Any],
    given: dict[str, Any],
    config_class: type[ConfigClass] = TrainConfig,
) -> ConfigClass:
    """The settings of a run that goes on: those stored in its checkpoint, and those given anew.

    Args:
        stored: the checkpoint's `train_config`.
        model_config: the checkpoint's `model_config`.
        given: settings the user gave explicitly; other than the model's, they take precedence.
        config_class: `TrainConfig`, or a dataclass that adds fields to it.

    Raises:
        UsageError: a given setting of the model differs from the checkpoint's.
    """
    config = config_class(**{**config_class.inherited(stored, given), **given})
    shape = config.model_config(model_config["vocab_size"])
    check_same_model(shape, TransformerConfig.from_dict(model_config))
    return config


def check_same_model(wanted: TransformerConfig, stored: TransformerConfig) -> None:
    """Refuse to go on with another architecture.

    Raises:
        UsageError: naming every setting that differs.
    """
    flags = {name: flag for flag, name in MODEL_FIELDS.items()}
    mine, theirs = wanted.to_dict(), stored.to_dict()
    differences = [
        f"{flags.get(name, name)} {mine[name]} (the checkpoint has {theirs[name]})"
        for name in mine
        if mine[name] != theirs[name]
    ]
    if differences:
        raise UsageError(
            f"the checkpoint holds another model: asked for {', '.join(differences)}; leave these flags out to resume"
        )
