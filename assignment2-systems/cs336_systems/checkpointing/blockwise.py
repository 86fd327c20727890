"""Which layers of the Transformer are computed again together: blocks of layers, and blocks within blocks."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.model.kv_cache import KeyValueCache
from cs336_systems.checkpointing.recompute import recompute

BlockSizes = tuple[int, ...]
"""Layers per block, outermost first, each less than the one before. (): keep everything. (4,): of every four layers
only the input is kept. (4, 2): when a block of four is computed again, it is done in blocks of two that are
checkpointed themselves."""


def check_block_sizes(block_sizes: BlockSizes, num_layers: int) -> None:
    """Refuse sizes that are no nested blocks.

    Raises:
        UsageError: a size is not from 1 to the number of layers, or not less than the one before it.
    """
    bound = num_layers + 1
    for size in block_sizes:
        if not 1 <= size < bound:
            raise UsageError(
                f"block sizes {block_sizes} do not fit {num_layers} layers; allowed are whole numbers from 1 to "
                f"{num_layers}, each less than the one before"
            )
        bound = size


def bisection(num_layers: int) -> BlockSizes:
    """Blocks halved again and again, down to single layers: memory grows as log(num_layers), work as
    num_layers · log(num_layers) (Chen et al. 2016, section 4.4)."""
    sizes = []
    size = num_layers
    while size > 1:
        size = (size + 1) // 2
        sizes.append(size)
    return tuple(sizes)


def run_in_blocks(
    layers: Sequence[nn.Module],
    block_sizes: BlockSizes,
    keep_random_state: bool,
    x: Float[Tensor, "... seq d_model"],
    token_positions: Int[Tensor, "... seq"] | None = None,
    mask: Bool[Tensor, "... seq keys"] | None = None,
) -> Float[Tensor, "... seq d_model"]:
    """The result of the layers one after another, checkpointed in (nested) blocks.

    Layers are called as modules, so whatever wraps them or hooks into them takes part in both runs.
    """
    if not block_sizes:
        for layer in layers:
            x = layer(x, token_positions, mask)
        return x
    for start in range(0, len(layers), block_sizes[0]):
        block = layers[start : start + block_sizes[0]]
        run = partial(run_in_blocks, block, block_sizes[1:], keep_random_state)
        x = recompute(run, x, token_positions, mask, keep_random_state=keep_random_state)
    return x


def _run_layers(
    model: BasicsTransformerLM,
    block_sizes: BlockSizes,
    keep_random_state: bool,
    x: Float[Tensor, "... seq d_model"],
    token_positions: Int[Tensor, "... seq"] | None = None,
    mask: Bool[Tensor, "... seq keys"] | None = None,
    cache: KeyValueCache | None = None,
) -> Float[Tensor, "... seq d_model"]:
    """What takes the place of `BasicsTransformerLM.run_layers`."""
    if cache is not None:  # generation: there is no backward pass, and a second run would append to the cache again
        return type(model).run_layers(model, x, token_positions, mask, cache)
    return run_in_blocks(list(model.layers), block_sizes, keep_random_state, x, token_positions, mask)


def checkpoint_layers(
    model: BasicsTransformerLM, block_sizes: BlockSizes | int, keep_random_state: bool = True
) -> BasicsTransformerLM:
    """Let a model checkpoint its layers from now on. Its parameters, state dict and results stay as they are.

    It may be wrapped for several devices before or afterwards. An earlier choice is replaced; () undoes it.

    Args:
        model: changed in place.
        block_sizes: layers per block; see `BlockSizes`. A number k stands for (k,).
        keep_random_state: see `recompute`; the model itself draws no random numbers.

    Returns:
        The same model.

    Raises:
        UsageError: the sizes do not fit the model's layers.
    """
    if isinstance(block_sizes, int):
        block_sizes = (block_sizes,)
    check_block_sizes(block_sizes, len(model.layers))
    vars(model).pop("run_layers", None)
    if block_sizes:
        model.run_layers = partial(_run_layers, model, block_sizes, keep_random_state)
    return model
