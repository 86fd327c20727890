"""Keys and values of tokens already read, so that each new token costs one step instead of the whole sequence."""

import torch
from jaxtyping import Float
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.model.config import TransformerConfig


class LayerCache:
    """One layer's keys and values, in memory set aside once for `capacity` tokens."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def append(
        self, keys: Float[Tensor, "batch heads new d_head"], values: Float[Tensor, "batch heads new d_head"]
    ) -> tuple[Float[Tensor, "batch heads length d_head"], Float[Tensor, "batch heads length d_head"]]:
        """Store the keys and values of new tokens; returns all stored so far (views, not copies).

        Raises:
            UsageError: they do not fit.
        """
        start, stop = self.length, self.length + keys.shape[-2]
        if stop > self.keys.shape[-2]:
            raise UsageError(f"{stop} tokens do not fit a key-value cache made for {self.keys.shape[-2]}")
        self.keys[:, :, start:stop] = keys
        self.values[:, :, start:stop] = values
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]


class KeyValueCache:
    """The caches of all layers.

    Args:
        config: the model's shape.
        batch_size: number of sequences.
        capacity: the most tokens per sequence.
        device, dtype: where the memory is, and the type of the keys and values.
    """

    def __init__(
        self, config: TransformerConfig, batch_size: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (config.num_layers, 2, batch_size, config.num_heads, capacity, config.d_head)
        memory = torch.empty(shape, device=device, dtype=dtype)
        self.layers = [LayerCache(keys, values) for keys, values in memory]

    @property
    def length(self) -> int:
        """Tokens stored per sequence."""
        return self.layers[0].length

    def clear(self) -> None:
        """Forget the tokens; the memory stays."""
        for layer in self.layers:
            layer.length = 0
