"""How much memory checkpointing in blocks needs, and the block size that needs least."""

import itertools
import math
from dataclasses import dataclass

from cs336_systems.checkpointing.blockwise import BlockSizes


@dataclass(frozen=True)
class ActivationBytes:
    """What a model keeps for the backward pass.

    Attributes:
        num_layers: number of equal layers.
        layer: bytes that one layer keeps, its input included.
        layer_input: bytes of a layer's input alone: what a checkpoint costs.
        before: bytes kept before the layers, until the end of the backward pass: for the embedding.
        after: bytes kept after the layers: for the output head and the loss.
    """

    num_layers: int
    layer: int
    layer_input: int
    before: int
    after: int

    def peak(self, block_sizes: BlockSizes) -> int:
        """The most bytes kept at once with checkpointing in (nested) blocks.

        For N layers in blocks of k that is N/k - 1 checkpoints and k layers, when the last block's layers are at hand
        again (Chen et al. 2016, https://arxiv.org/abs/1604.06174, equation 1); or all checkpoints and what comes after
        the layers, at the end of the forward pass.
        """
        if not block_sizes:
            return self.before + self.num_layers * self.layer + self.after
        checkpoints = math.ceil(self.num_layers / block_sizes[0])
        again = self.layer_input + self._beyond_input(self.num_layers, block_sizes)
        return self.before + max(again, checkpoints * self.layer_input + self.after)

    def _beyond_input(self, num_layers: int, block_sizes: BlockSizes) -> int:
        """The most bytes kept while layers are computed again and sent back through, beside the first one's input."""
        if not block_sizes:
            return num_layers * self.layer - self.layer_input
        first, *inner = block_sizes
        starts = range(0, num_layers, first)
        return max(
            index * self.layer_input + self._beyond_input(min(first, num_layers - start), tuple(inner))
            for index, start in enumerate(starts)
        )

    @property
    def ideal_block_size(self) -> float:
        """sqrt(N · input / layer), where N/k · input + k · layer is least.

        Chen et al. 2016, section 4.3, take input and layer to be alike: sqrt(N).
        """
        return math.sqrt(self.num_layers * self.layer_input / self.layer)

    def best_two_levels(self) -> BlockSizes | None:
        """The two nested block sizes with the least `peak`; None if there are fewer than two layers to part."""
        pairs = itertools.combinations(range(self.num_layers, 0, -1), 2)
        return min(pairs, key=self.peak, default=None)
