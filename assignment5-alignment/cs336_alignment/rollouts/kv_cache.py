"""Keys and values of the tokens read so far, kept in buffers that grow now and then instead of at each token.

`transformers.DynamicCache` concatenates: each new token copies the whole cache. Here a token is written into place, and
attention reads a view. Rows (sequences) that are finished are overwritten by rows from the end, so that leaving the
batch costs one row's copy.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer

_LEAST_GROWTH = 64
"""Columns; small batches of short responses grow once or twice."""


class GrowingLayer(DynamicLayer):
    """The keys and values of one attention layer, each of shape (rows, key heads, columns, head size)."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._rows = 0
        self._columns = 0

    def update(
        self,
        key_states: Float[Tensor, "rows heads new size"],
        value_states: Float[Tensor, "rows heads new size"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "rows heads columns size"], Float[Tensor, "rows heads columns size"]]:
        """Add the newest columns; returns all of them."""
        if self._buffers is None:  # the prompts: what comes next decides how much room is needed
            self._buffers = (key_states, value_states)
            self._rows, self._columns = key_states.shape[0], key_states.shape[2]
        else:
            self._append(key_states, value_states)
        self.keys, self.values = (buffer[: self._rows, :, : self._columns] for buffer in self._buffers)
        self.is_initialized = True
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._columns

    def expand_rows(self, rows: Int[Tensor, " new_rows"]) -> None:
        """Start anew with copies of these rows, in this order."""
        self._buffers = tuple(self._grown(buffer.index_select(0, rows)) for buffer in (self.keys, self.values))
        self._rows = len(rows)

    def move_rows(self, sources: Int[Tensor, " moved"], targets: Int[Tensor, " moved"], rows: int) -> None:
        """Copy some rows over others, then keep the first `rows`."""
        for buffer in self._buffers:
            buffer[targets, :, : self._columns] = buffer[sources, :, : self._columns]
        self._rows = rows

    def _append(self, keys: Tensor, values: Tensor) -> None:
        first, self._columns = self._columns, self._columns + keys.shape[2]
        if self._columns > self._buffers[0].shape[2]:
            self._buffers = tuple(self._grown(buffer[: self._rows, :, :first]) for buffer in self._buffers)
        for buffer, new in zip(self._buffers, (keys, values), strict=True):
            buffer[: self._rows, :, first : self._columns] = new

    def _grown(self, content: Tensor) -> Tensor:
        rows, heads, columns, size = content.shape
        buffer = content.new_empty(rows, heads, columns + max(_LEAST_GROWTH, columns // 2), size)
        buffer[:, :, :columns] = content
        return buffer


class RolloutCache(DynamicCache):
    """The cache of a batch that only grows in columns and only shrinks in rows.

    Layers that attend to a sliding window, or to no keys at all, keep the kind that transformers gives them.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in self.layers]
        if self.layer_class_to_replicate is DynamicLayer:
            self.layer_class_to_replicate = GrowingLayer

    def expand_rows(self, rows: Int[Tensor, " new_rows"]) -> None:
        """Go on with copies of these rows, in this order: each prompt's row once for each of its responses."""
        for layer in self.layers:
            if isinstance(layer, GrowingLayer):
                layer.expand_rows(rows)
            else:
                layer.reorder_cache(rows)

    def move_rows(self, sources: Int[Tensor, " moved"], targets: Int[Tensor, " moved"], rows: int) -> None:
        """Put the rows `sources`, at the end, in the places of the rows `targets`; keep the first `rows`."""
        for layer in self.layers:
            if isinstance(layer, GrowingLayer):
                layer.move_rows(sources, targets, rows)
            else:
                order = torch.arange(rows, device=sources.device)
                order[targets] = sources
                layer.reorder_cache(order)
