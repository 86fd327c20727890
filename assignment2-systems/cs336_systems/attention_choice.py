"""The attention functions that a command's `--attention` chooses between."""

from cs336_basics.model.attention import AttentionFunction, plain_attention
from cs336_basics.model.tiled_attention import tiled_attention
from cs336_systems.flash_attention import flash_attention

_FUNCTIONS: dict[str, AttentionFunction] = {
    "plain": plain_attention,
    "tiled": tiled_attention,
    "flash": flash_attention,
}

ATTENTION_NAMES = tuple(_FUNCTIONS)


def attention_function(name: str) -> AttentionFunction:
    """The function of a name in `ATTENTION_NAMES`: whole matrices, a CPU's tiles, or FlashAttention-2."""
    return _FUNCTIONS[name]
