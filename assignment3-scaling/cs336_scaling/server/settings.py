"""The server's settings, one dataclass: `create_app(ServerSettings(...))`."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cs336_basics.command_line import UsageError
from cs336_scaling.schemas.limits import (
    BUDGET_2025_FLOPS,
    BUDGET_2026_SECONDS,
    SEQUENCE_LENGTH,
    VALIDATION_TOKENS,
)

_LARGEST_FLOPS = 9e18  # databases keep FLOPs as whole numbers of 64 bits
_LARGEST_SECONDS = 1e12  # an answer's JSON knows no infinity
BackendKind = Literal["simulate", "train"]


@dataclass(frozen=True)
class TrainSettings:
    """How the `train` backend trains. All of it is the server's business: clients cannot see or set it.

    Attributes:
        tokenizer_vocab_size: of the tokenizer that is trained on the default text; submitted models need at least as
            many ids.
        sequence_length: tokens per sequence; divides 512. A batch of B sequences of 512 tokens is trained as
            512 B / sequence_length shorter ones: the same tokens, less attention.
        validation_tokens: per validation, at most what the validation text has.
        micro_batch_tokens: the most tokens that go through the model at once.
        device: as for the training program.
        checkpoint_seconds: training time between two checkpoints; every validation makes one as well.
        lease_seconds: a worker that is not heard of for so long has lost its experiment.
        max_attempts: an experiment whose workers died so often without one validation in between fails.
        train_bytes, valid_bytes: sizes of generated text, where no TinyStories are in the data folder.
    """

    tokenizer_vocab_size: int = 4096
    sequence_length: int = SEQUENCE_LENGTH
    validation_tokens: int = VALIDATION_TOKENS
    micro_batch_tokens: int = 8192
    device: str = "auto"
    checkpoint_seconds: float = 30.0
    lease_seconds: float = 30.0
    max_attempts: int = 3
    train_bytes: int = 10_000_000
    valid_bytes: int = 1_500_000

    def __post_init__(self) -> None:
        if self.sequence_length < 1 or SEQUENCE_LENGTH % self.sequence_length:
            raise UsageError(
                f"sequence_length is {self.sequence_length}; allowed are the divisors of {SEQUENCE_LENGTH}"
            )
        for name in ("validation_tokens", "micro_batch_tokens", "max_attempts", "train_bytes", "valid_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is any whole number above 0")
        for name in ("checkpoint_seconds", "lease_seconds"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is any number above 0")


@dataclass(frozen=True)
class ServerSettings:
    """What a server is.

    Attributes:
        data_dir: the folder of the database, of texts and tokens, and of checkpoints; made if it is missing.
        database_url: any SQLAlchemy URL; None for the SQLite file `training_api.sqlite` in `data_dir`.
        backend: "simulate" or "train".
        world_seed: names the world that `simulate` trains in.
        speed: simulated seconds per real second; infinite for results at once.
        slots: simulated experiments of one user that run at the same time.
        budget_flops, budget_seconds: of a new user, for the 2025 and the 2026 edition.
        train: for the `train` backend.
    """

    data_dir: Path = Path("server_data")
    database_url: str | None = None
    backend: BackendKind = "simulate"
    world_seed: int = 336
    speed: float = math.inf
    slots: int = 4
    budget_flops: float = BUDGET_2025_FLOPS
    budget_seconds: float = BUDGET_2026_SECONDS
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if self.backend not in ("simulate", "train"):
            raise UsageError(f"backend is {self.backend!r}; allowed are simulate and train")
        for name in ("speed", "budget_flops", "budget_seconds", "slots"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is any number above 0")
        for name, largest in (("budget_flops", _LARGEST_FLOPS), ("budget_seconds", _LARGEST_SECONDS)):
            if getattr(self, name) > largest:
                raise UsageError(f"{name} is {getattr(self, name):g}; allowed is at most {largest:g}")
        if self.world_seed < 0:
            raise UsageError(f"world_seed is {self.world_seed}; allowed is any whole number of at least 0")

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'training_api.sqlite'}"
