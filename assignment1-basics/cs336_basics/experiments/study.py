"""What a study is: a question, and the training runs whose comparison answers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cs336_basics.command_line import UsageError

Scale = Literal["smoke", "cpu", "laptop", "gpu"]
SCALES = ("smoke", "cpu", "laptop", "gpu")
Corpus = Literal["tinystories", "openwebtext"]

HANDOUT_MODEL = {"context_len": 256, "d_model": 512, "num_layers": 4, "num_heads": 16, "d_ff": 1344}

BASE_SETTINGS: dict[Scale, dict[str, Any]] = {
    # Shows that everything works, within a minute; its losses mean nothing.
    "smoke": {
        "context_len": 64, "d_model": 64, "num_layers": 2, "num_heads": 4, "batch_size": 8, "train_steps": 30,
        "val_interval": 10, "val_batches": 2, "log_intervals": 5,
    },
    # A tenth of the width and an hour or two for a whole study on a few CPU cores.
    "cpu": {
        "context_len": 128, "d_model": 128, "num_layers": 4, "num_heads": 4, "batch_size": 32, "train_steps": 1000,
        "val_interval": 100, "val_batches": 10,
    },
    # The handout's model and its low-resource budget: 40,960,000 tokens.
    "laptop": {**HANDOUT_MODEL, "batch_size": 32, "train_steps": 5000, "val_interval": 250, "val_batches": 20},
    # The handout's model and budget: 327,680,000 tokens.
    "gpu": {
        **HANDOUT_MODEL, "batch_size": 128, "train_steps": 10_000, "val_interval": 250, "val_batches": 20,
        "dtype": "bfloat16", "compile": True,
    },
}  # fmt: skip
"""Settings of TrainConfig shared by the runs of every study, by scale."""

VOCAB_SIZES: dict[Corpus, dict[Scale, int]] = {
    "tinystories": {"smoke": 512, "cpu": 2048, "laptop": 10_000, "gpu": 10_000},
    "openwebtext": {"smoke": 512, "cpu": 8192, "laptop": 32_000, "gpu": 32_000},
}
"""Vocabulary of the tokenizer that is trained for a study."""


@dataclass(frozen=True)
class Run:
    """One training run of a study."""

    name: str
    """Names the run in tables and is its folder's name."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of TrainConfig in which it differs from the study's base."""


@dataclass(frozen=True)
class Study:
    """Runs to compare."""

    name: str
    title: str
    question: str
    """What the study asks and how to read its result; heads its report."""
    base: Mapping[str, Any]
    """Settings of TrainConfig that all runs share."""
    runs: tuple[Run, ...]
    varied: tuple[str, ...] = ()
    """Settings that become columns of the table."""
    x_axis: str | None = None
    """The setting against which the final loss is plotted (on a logarithmic axis), if there is one."""
    stop_after_divergence: bool = False
    """Runs are ordered by how risky they are: after the first that diverges, the others are left out."""
    corpus: Corpus = "tinystories"
    vocab_size: int = 10_000
    fill_minutes: float | None = None
    """Choose train_steps so that training fills this time on the machine at hand."""

    def select(self, names: list[str]) -> "tuple[Run, ...]":
        """The runs of these names, in the study's order; all for an empty list.

        Raises:
            UsageError: the study has no run of that name.
        """
        known = [run.name for run in self.runs]
        for name in names:
            if name not in known:
                raise UsageError(f"study {self.name} has no run {name!r}; its runs are {', '.join(known)}")
        return tuple(run for run in self.runs if not names or run.name in names)
