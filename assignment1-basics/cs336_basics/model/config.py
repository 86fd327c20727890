"""The shape of a model, ablations included: everything needed to build it again, and nothing about training."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from cs336_basics.command_line import UsageError

NormPlacement = Literal["pre", "post", "none"]
PositionKind = Literal["rope", "none"]
FeedForwardKind = Literal["swiglu", "silu"]


def default_d_ff(d_model: int, ffn: FeedForwardKind = "swiglu") -> int:
    """The feed-forward width for `d_model`: 8/3 of it, to the nearest multiple of 64 (at least 64).

    A SiLU feed-forward has two matrices where SwiGLU has three, so it gets 3/2 of that width: the same parameters.
    """
    swiglu_width = max(64, 64 * round(8 * d_model / (3 * 64)))
    return swiglu_width if ffn == "swiglu" else 3 * swiglu_width // 2


@dataclass(frozen=True)
class TransformerConfig:
    """A decoder-only Transformer language model.

    Attributes:
        vocab_size: number of token ids.
        context_length: the most tokens the model attends over.
        d_model: width of the residual stream.
        num_layers: number of Transformer blocks.
        num_heads: attention heads per block; divides `d_model`.
        d_ff: width of the feed-forward layer; None takes `default_d_ff(d_model, ffn)`, and is never left None.
        rope_theta: base of the rotary frequencies.
        norm: RMSNorm before each sub-layer and at the end ("pre"), after each residual sum ("post"), or nowhere.
        position: rotary embeddings ("rope") or no position information at all ("none", NoPE).
        ffn: gated ("swiglu") or plain ("silu") feed-forward layer.
        tie_embeddings: the output head is the token embedding matrix.
        qk_norm: RMSNorm on each head's queries and keys before they are rotated.
        norm_eps: added to the mean square inside RMSNorm.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    vocab_size: int = 10_000
    context_length: int = 256
    d_model: int = 512
    num_layers: int = 4
    num_heads: int = 16
    d_ff: int | None = None
    rope_theta: float = 10_000.0
    norm: NormPlacement = "pre"
    position: PositionKind = "rope"
    ffn: FeedForwardKind = "swiglu"
    tie_embeddings: bool = False
    qk_norm: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, allowed in (("norm", NormPlacement), ("position", PositionKind), ("ffn", FeedForwardKind)):
            if getattr(self, name) not in get_args(allowed):
                choices = ", ".join(get_args(allowed))
                raise UsageError(f"{name} is {getattr(self, name)!r}; allowed are {choices}")
        for name in ("vocab_size", "context_length", "d_model", "num_layers", "num_heads"):
            self._check_positive(name, whole=True)
        for name in ("rope_theta", "norm_eps"):
            self._check_positive(name, whole=False)
        if self.d_model % self.num_heads:
            raise UsageError(f"d_model {self.d_model} is not a multiple of num_heads {self.num_heads}")
        if self.position == "rope" and self.d_head % 2:
            raise UsageError(f"d_model / num_heads is {self.d_head}; rotary embeddings need an even number")
        if self.d_ff is None:
            object.__setattr__(self, "d_ff", default_d_ff(self.d_model, self.ffn))
        self._check_positive("d_ff", whole=True)

    def _check_positive(self, name: str, whole: bool) -> None:
        value = getattr(self, name)
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{name} is {value!r}; allowed is any {'whole ' if whole else ''}number above 0")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TransformerConfig":
        """The configuration `to_dict` wrote; settings that are missing take their defaults.

        Raises:
            UsageError: a name is unknown, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"model configuration has unknown settings {unknown}; allowed are {sorted(known)}")
        return cls(**values)
