"""Spring 2026: experiments that queue and run, paid in wall-clock seconds.

What a client sends may hold no unknown keys and no values of another type (a number in quotes, 512.0 for a whole
number).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from cs336_scaling.schemas.limits import BUDGET_2026_SECONDS, SEQUENCE_LENGTH, TARGET_2026_SECONDS

VOCABULARY_SIZES = range(256, 262_145)
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ArchitectureConfig(_Strict):
    """A decoder-only Transformer with RoPE, SwiGLU and RMSNorm, in the names of Hugging Face's Llama.

    Raises:
        ValidationError: a value is out of range, or values do not go together.
    """

    attention_bias: bool = False
    head_dim: int = Field(ge=2, le=256)
    hidden_size: int = Field(ge=16, le=8192)
    intermediate_size: int = Field(ge=16, le=65_536)
    num_attention_heads: int = Field(ge=1, le=128)
    num_hidden_layers: int = Field(ge=1, le=128)
    num_key_value_heads: int = Field(ge=1, le=128)
    rms_norm_eps: float = Field(default=1e-6, ge=1e-12, le=1e-2)
    rope_theta: float = Field(default=10_000.0, ge=1.0, le=1e8)
    tie_word_embeddings: bool = False
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    vocab_size: int = Field(ge=VOCABULARY_SIZES[0], le=VOCABULARY_SIZES[-1])

    @model_validator(mode="after")
    def _check_shape(self) -> "ArchitectureConfig":
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size != heads * self.head_dim:
            raise ValueError(
                f"hidden_size must equal num_attention_heads * head_dim = {heads} * {self.head_dim} = "
                f"{heads * self.head_dim}, got {self.hidden_size}"
            )
        if heads % kv_heads:
            raise ValueError(
                f"num_attention_heads must be divisible by num_key_value_heads, got {heads} and {kv_heads}"
            )
        if heads != kv_heads:
            raise ValueError(
                f"num_key_value_heads must equal num_attention_heads (grouped-query attention is not supported yet), "
                f"got {kv_heads} and {heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, got {self.head_dim}")
        if self.intermediate_size < self.hidden_size:
            raise ValueError(
                f"intermediate_size must be at least hidden_size {self.hidden_size}, got {self.intermediate_size}"
            )
        return self

    @property
    def num_block_parameters(self) -> int:
        """Weights of the blocks' matrices: attention's four and SwiGLU's three."""
        per_layer = 4 * self.hidden_size**2 + 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * per_layer

    @property
    def num_embedding_parameters(self) -> int:
        """Weights of the token embedding and of the output head, which are one matrix where they are tied."""
        return (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All weights: blocks, embeddings and norms (biases of attention where there are any)."""
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        biases = 4 * self.num_hidden_layers * self.hidden_size if self.attention_bias else 0
        return self.num_block_parameters + self.num_embedding_parameters + norms + biases


class LRScheduler(_Strict):
    """Linear warm-up from `init_value` to `peak_value`, then half a cosine down to `final_lr_frac` of the peak."""

    peak_value: float = Field(ge=1e-7, le=10)
    final_lr_frac: Fraction = 0.1
    warmup_frac: Fraction = 0.05
    init_value: float = Field(default=0.0, ge=0, le=10)

    @model_validator(mode="after")
    def _check_order(self) -> "LRScheduler":
        if self.init_value > self.peak_value:
            raise ValueError(f"init_value must be at most peak_value {self.peak_value}, got {self.init_value}")
        return self


class AdamWConfig(_Strict):
    """AdamW; `eps` is added to the second moment's root, `eps_root` under it; no clipping where the norm is null."""

    type: Literal["adamw"] = "adamw"
    lr_scheduler: LRScheduler
    weight_decay: float = Field(default=0.1, ge=0, le=10)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, ge=1e-16, le=1e-2)
    eps_root: float = Field(default=0.0, ge=0, le=1e-2)
    grad_clip_norm: float | None = Field(default=1.0, gt=0, le=1000)


class SGDConfig(_Strict):
    """Stochastic gradient descent with heavy-ball momentum."""

    type: Literal["sgd"] = "sgd"
    lr_scheduler: LRScheduler
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    grad_clip_norm: float | None = Field(default=1.0, gt=0, le=1000)


def _optimizer_type(value: Any) -> str:
    """`type` if it is given; else SGD where there is a momentum, and AdamW."""
    if isinstance(value, dict):
        return str(value.get("type", "sgd" if "momentum" in value else "adamw"))
    return str(getattr(value, "type", "adamw"))


OptimizerConfig = Annotated[
    Annotated[AdamWConfig, Tag("adamw")] | Annotated[SGDConfig, Tag("sgd")],
    Discriminator(
        _optimizer_type,
        custom_error_type="optimizer_type",
        custom_error_message="optimizer_config.type must be adamw or sgd",
    ),
]


class TrainingConfig(_Strict):
    """One experiment: the body of `POST /submit`.

    Raises:
        ValidationError: a value is out of range, or values do not go together.
    """

    architecture_config: ArchitectureConfig
    optimizer_config: OptimizerConfig
    train_batch_size: int = Field(ge=1, le=65_536, description="sequences of 512 tokens per optimizer step")
    val_batch_size: int = Field(default=64, ge=1, le=4096, description="sequences per validation batch")
    n_evals: int = Field(default=10, ge=1, le=1000, description="validations, evenly spaced, the last at the end")
    total_train_tokens: int = Field(ge=SEQUENCE_LENGTH, le=10**13)
    max_runtime_seconds: float = Field(ge=1, le=BUDGET_2026_SECONDS)
    model_seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _check_steps(self) -> "TrainingConfig":
        per_step = SEQUENCE_LENGTH * self.train_batch_size
        if self.total_train_tokens % per_step:
            raise ValueError(
                f"total_train_tokens must be divisible by {SEQUENCE_LENGTH} * train_batch_size = {per_step}, "
                f"got {self.total_train_tokens}"
            )
        if self.num_steps % self.n_evals:
            raise ValueError(f"the number of steps, {self.num_steps}, must be divisible by n_evals, got {self.n_evals}")
        return self

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.total_train_tokens // (SEQUENCE_LENGTH * self.train_batch_size)


class BudgetSummary(BaseModel):
    """Seconds that are used (charged, or reserved by queued and running experiments), left, and in total."""

    used_seconds: float
    remaining_seconds: float
    total_budget_seconds: float


class SubmitResponse(BaseModel):
    """Answer of `POST /submit`."""

    experiment_id: str
    budget_summary: BudgetSummary


StatusType = Literal["queued", "running", "completed", "failed"]
FailureReason = Literal["timed_out", "diverged", "error"]


class Experiment(BaseModel):
    """Answer of `GET /experiment/{id}`; `GET /experiments` answers with a list of them, the oldest first.

    Attributes:
        status_type: where it stands. A time-out, a divergence or an error is `failed`, with a `failure_reason`.
        val_losses, val_steps: the validations so far, nats per token, and the optimizer steps they were made after.
        final_val_loss: the last one's, once completed.
        runtime_seconds: so far, or in all; `charged_seconds` is set once it is at its end, and `reserved_seconds`
            falls to 0 then.
        queue_position: 1 for the next to run; null unless queued.
        message: one sentence about a failure; else empty.
    """

    experiment_id: str
    status_type: StatusType
    training_config: TrainingConfig
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue_position: int | None
    val_losses: list[float]
    val_steps: list[int]
    final_val_loss: float | None
    runtime_seconds: float
    charged_seconds: float | None
    reserved_seconds: float
    failure_reason: FailureReason | None
    message: str


class TargetConfig(TrainingConfig):
    """A configuration for the target budget, which is larger than what an experiment may reserve."""

    max_runtime_seconds: float = Field(ge=1, le=TARGET_2026_SECONDS)


class FinalSubmissionRequest(_Strict):
    """Body of `POST /final_submission`: the configuration for the target budget, and the loss it is said to reach."""

    training_config: TargetConfig
    predicted_final_loss: float = Field(gt=0)


class FinalSubmission(FinalSubmissionRequest):
    """Answer of `POST` and `GET /final_submission`; the last one counts."""

    submitted_at: datetime = Field(strict=False)
