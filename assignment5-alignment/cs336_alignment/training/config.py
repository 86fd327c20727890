"""The settings that every training program has; a program's own are added by a subclass."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cs336_alignment.lora import DEFAULT_TARGETS
from cs336_basics.check_pointing import read_checkpoint, resolve_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.settings import Settings, setting

CHECKPOINT_FOLDER = "checkpoints"
DEFAULT_MODEL, TUNED_MODEL = "default", "default-sft"
"""The small model that is pretrained here, and the same after supervised fine-tuning."""
SMOKE_MODEL, SMOKE_TUNED_MODEL = "default-smoke", "default-sft-smoke"
"""Those of `--smoke`: smaller, and made in seconds."""
SMOKE_MODELS = {DEFAULT_MODEL: SMOKE_MODEL, TUNED_MODEL: SMOKE_TUNED_MODEL}
SMALL_MODELS = (*SMOKE_MODELS, *SMOKE_MODELS.values())
MODEL_HELP = (
    "policy to start from: a Hugging Face folder or name, or a small model made here: `default`, or `default-sft`, "
    "which scripts/sft.py has taught to answer the default task now and then"
)


def fitted_setting(default_task: Any, data: Any, help: str, *, shown: str | None = None) -> Field:
    """A `setting` that fits the data if it is left open: a model of billions of parameters learns with small steps what
    ours, with a thousandth of them, needs large ones for.

    Args:
        default_task: the value where no `data` are given.
        data: the value for data that are given.
        help: as for `setting`.
        shown: describes a `data` of None.
    """
    made = setting(None, help, type=type(default_task), shown=f"{shown or data}; {default_task} for the default task")
    return field(default=None, metadata={**made.metadata, "fitted": (default_task, data)})


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """Settings of a training run; each field's help text is its documentation (`--help` prints them all).

    Attributes:
        SMOKE: what `--smoke` sets beside the model, unless given explicitly; each program has its own.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    SMOKE: ClassVar[Mapping[str, Any]] = {}

    model: str = setting(DEFAULT_MODEL, MODEL_HELP)
    data: str | None = setting(
        None, "training data, a .jsonl or .jsonl.gz file", type=str, shown="the arithmetic task made here"
    )
    val_data: str | None = setting(
        None, "validation data, in the same form", type=str, shown="that of the default task, or none"
    )
    out: str | None = setting(
        None, "folder for the log, checkpoints and the trained model", type=str, shown="runs/ and the program and time"
    )
    resume_ckp: str | None = setting(
        None, "go on from this checkpoint, or from the `latest` in the folder --out, with the settings stored in it",
        type=str, shown="a fresh run",
    )  # fmt: skip
    seed: int = setting(0, "seed of the data order, of sampling and of new weights")
    smoke: bool = setting(False, "a tiny run, to see that everything works")

    lr: float = setting(1e-4, "highest learning rate")
    min_lr: float = setting(0.0, "learning rate at the end of a cosine or linear schedule")
    schedule: str = setting("constant", "learning rate after the warm-up", choices=("constant", "cosine", "linear"))
    warmup_steps: int = setting(0, "optimizer steps of linear warm-up")
    warmup_fraction: float = setting(0.0, "share of all optimizer steps that are warm-up; 0 leaves it to warmup_steps")
    optimizer: str = setting("adamw", "what turns gradients into steps", choices=("adamw", "rmsprop"))
    beta1: float = setting(0.9, "AdamW's decay of the first moment")
    beta2: float = setting(0.95, "decay of the second moment; RMSprop's alpha")
    eps: float = setting(1e-8, "addend to the optimizer's denominator")
    weight_decay: float = setting(0.0, "AdamW's decay of matrices (norms and biases are not decayed)")
    max_grad_norm: float = setting(1.0, "largest global L2 norm of the gradient; 0 for no clipping")
    gradient_accumulation_steps: int = setting(1, "microbatches a batch is split into, to save memory")

    lora_rank: int = setting(0, "rank of LoRA adapters; 0 trains all weights")
    lora_alpha: float = setting(16.0, "LoRA's scale: adapters count alpha / rank")
    lora_dropout: float = setting(0.0, "dropout on the adapters' inputs")
    lora_targets: str = setting(",".join(DEFAULT_TARGETS), "linear layers with adapters, by the end of the name")

    device: str = setting("auto", "where to train: auto, cuda, cuda:N, mps or cpu")
    dtype: str = setting("float32", "type of the weights", choices=("float32", "bfloat16"))
    autocast: str = setting("none", "type of matrix products, if not the weights'", choices=("none", "bfloat16"))
    attention: str = setting("sdpa", "attention kernel of transformers", choices=("sdpa", "eager", "flash_attention_2"))
    compile: bool = setting(False, "compile the training forward and backward pass with torch.compile")
    gradient_checkpointing: bool = setting(False, "recompute activations in the backward pass, to save memory")

    log_every: int = setting(1, "steps between two log entries")
    eval_every: int = setting(50, "steps between two evaluations; 0 for none but the last")
    save_every: int = setting(100, "steps between two checkpoints; 0 for none but the last")
    keep_checkpoints: int = setting(2, "checkpoints to keep, the newest ones; 0 for all")
    wandb_project: str | None = setting(
        None, "log to this Weights & Biases project; offline where there is no key or network", type=str, shown="none"
    )
    wandb_run_name: str | None = setting(None, "name of the run", type=str, shown="that of the folder --out")
    no_wandb: bool = setting(False, "do not log to Weights & Biases, whatever the other flags say")

    def __post_init__(self) -> None:
        for spec in fields(self):
            if "fitted" in spec.metadata and getattr(self, spec.name) is None:
                object.__setattr__(self, spec.name, spec.metadata["fitted"][self.data is not None])
        self.check_types()
        for name in ("gradient_accumulation_steps", "log_every"):
            self.check_range(name, 1, math.inf)
        for name in (
            "lr", "min_lr", "warmup_steps", "eps", "weight_decay", "max_grad_norm", "lora_rank", "lora_alpha",
            "eval_every", "save_every", "keep_checkpoints",
        ):  # fmt: skip
            self.check_range(name, 0, math.inf)
        for name in ("beta1", "beta2", "lora_dropout", "warmup_fraction"):
            self.check_range(name, 0, 1, below=True)
        self.check_range("seed", 0, 2**63, below=True)
        if self.optimizer == "rmsprop" and self.weight_decay:
            raise UsageError(
                f"weight_decay is {self.weight_decay}, which the optimizer rmsprop has not; use adamw, or 0"
            )
        if self.min_lr > self.lr:
            raise UsageError(f"min_lr {self.min_lr} is above lr {self.lr}")

    @property
    def checkpoint_folder(self) -> Path:
        """Where the run's checkpoints lie."""
        return Path(self.out or ".") / CHECKPOINT_FOLDER


Config = TypeVar("Config", bound=TrainingConfig)

NOT_INHERITED = ("resume_ckp", "smoke")
"""Settings of one call of a program rather than of its run."""


def parse_config(config_class: type[Config], argv: Sequence[str] | None, *, program: str, description: str) -> Config:
    """The settings that a command line asks for.

    With `--resume_ckp`, those left out come from the checkpoint. Else `--smoke` lowers those left out.

    Args:
        config_class: the program's settings.
        argv: the arguments without the program's name; None: `sys.argv[1:]`.
        program: the script's file name, for `--help`.
        description: one sentence, for `--help`.

    Raises:
        UsageError: a setting is out of range, or the checkpoint cannot be resumed.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    config_class.add_flags(parser)
    given = vars(parser.parse_args(argv))
    return config_from_settings(config_class, given)


def config_from_settings(config_class: type[Config], given: Mapping[str, Any]) -> Config:
    """All settings, from the given ones and what `resume_ckp` or `smoke` add to them.

    Raises:
        UsageError: a setting is out of range, or the checkpoint cannot be resumed.
    """
    if "resume_ckp" not in given:
        smoke = {"model": SMOKE_MODELS[config_class.model], **config_class.SMOKE} if given.get("smoke") else {}
        return config_class(**{**smoke, **given})
    if given["resume_ckp"] == "latest" and "out" not in given:
        raise UsageError("resume_ckp is latest, but of which run? give its folder with --out")
    folder = Path(given.get("out", "."), CHECKPOINT_FOLDER)
    path = resolve_checkpoint(given["resume_ckp"], folder, lambda sentence: print(sentence, file=sys.stderr))
    stored = read_checkpoint(path).get("training_config")
    if stored is None:
        raise UsageError(f"{path} cannot be resumed: it has no training_config; give one that this program wrote")
    kept = {
        spec.name: stored[spec.name]
        for spec in fields(config_class)
        if spec.name in stored and spec.name not in NOT_INHERITED
    }
    if "wandb_project" in given:
        kept["no_wandb"] = False
    return config_class(**{**kept, **given, "resume_ckp": str(path)})
