"""The model sizes that commands know by name: those of the assignment's handout, and a few of ours."""

from cs336_basics.command_line import UsageError
from cs336_basics.model.config import TransformerConfig

VOCAB_SIZE = 10_000

SIZES: dict[str, tuple[int, int, int, int]] = {
    "tiny": (32, 64, 2, 2),
    "mini": (64, 128, 4, 4),
    "small": (768, 3072, 12, 12),
    "medium": (1024, 4096, 24, 16),
    "large": (1280, 5120, 36, 20),
    "xl": (1600, 6400, 48, 25),
    "2.7B": (2560, 10_240, 32, 32),
    "10B": (4096, 11_264, 48, 32),
}
"""Name: (d_model, d_ff, num_layers, num_heads). small to 2.7B are those of the Spring 2025 handout (section 1.1.2). The
others are our own choice: tiny and mini for quick trials, and 10B with 9.95 billion parameters, heads of dimension 128
and a SwiGLU of 2.75 times the width."""


def model_size(
    name: str,
    context_length: int,
    *,
    vocab_size: int = VOCAB_SIZE,
    d_model: int | None = None,
    d_ff: int | None = None,
    num_layers: int | None = None,
    num_heads: int | None = None,
) -> TransformerConfig:
    """The shape of a named size, with any of its numbers replaced.

    Args:
        name: a key of `SIZES`.
        context_length: the most tokens the model attends over.
        vocab_size: number of token ids.
        d_model, d_ff, num_layers, num_heads: instead of the named size's; None keeps it.

    Raises:
        UsageError: the name is unknown, or the numbers do not go together.
    """
    if name not in SIZES:
        raise UsageError(f"model size {name!r} is unknown; allowed are {', '.join(SIZES)}")
    named = SIZES[name]
    given = (d_model, d_ff, num_layers, num_heads)
    d_model, d_ff, num_layers, num_heads = (
        own if other is None else other for own, other in zip(named, given, strict=True)
    )
    return TransformerConfig(vocab_size, context_length, d_model, num_layers, num_heads, d_ff)
