"""The two collectives of FSDP on matrices that are divided by rows: gathering a weight, summing its gradient.

Rank r of W owns rows r · c … (r + 1) · c - 1 with c = ceil(rows / W); the last ranks may own fewer, or none.

NCCL has both collectives. Gloo imitates them: its all-gather copies the result once more, and its reduce-scatter is an
all-reduce of a copy, twice the traffic. There each rank broadcasts its rows straight into place, and gradients go
straight to the rank that owns them, which adds them in the order of the ranks.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


class Pending:
    """A collective under way.

    Args:
        works: what to wait for.
        finish: makes the result once all is there.
        buffers: what the collective reads and writes, kept until then.
    """

    def __init__(self, works: list[Any], finish: Callable[[], Any] = lambda: None, *buffers: Tensor) -> None:
        self._works = works
        self._finish = finish
        self._buffers = buffers

    def wait(self) -> Any:
        """Wait for the end; returns the result."""
        for work in self._works:
            work.wait()
        return self._finish()


class RowExchange:
    """Gathers and sums matrices divided by rows over a process group.

    Args:
        process_group: the ranks; None is all of them.
        native: use the backend's own all-gather and reduce-scatter; None does so unless the backend is gloo.
    """

    def __init__(self, process_group: dist.ProcessGroup | None = None, native: bool | None = None) -> None:
        self.process_group = process_group
        self.rank = dist.get_rank(process_group)
        self.world_size = dist.get_world_size(process_group)
        self.native = dist.get_backend(process_group) != "gloo" if native is None else native

    def padded_rows(self, rows: int) -> int:
        """`rows` rounded up to a multiple of the number of ranks."""
        return -(-rows // self.world_size) * self.world_size

    def rows_of(self, rank: int, rows: int) -> slice:
        """The rows that a rank owns of `rows`."""
        each = self.padded_rows(rows) // self.world_size
        return slice(min(rank * each, rows), min((rank + 1) * each, rows))

    def start_gather(self, shard: Float[Tensor, "own ..."], padded: Float[Tensor, "padded ..."], rows: int) -> Pending:
        """Start filling `padded[:rows]` with the shards of all ranks.

        Args:
            shard: this rank's rows, of any floating type.
            padded: the rows of all ranks, rounded up by `padded_rows`; what is sent has its type.
            rows: the number of rows without padding.
        """
        if self.native:
            own = padded.chunk(self.world_size)[self.rank]
            own[: len(shard)].copy_(shard)
            works = [dist.all_gather_single(padded, own.clone(), group=self.process_group, async_op=True)]
            return Pending(works, lambda: None, padded)
        padded[self.rows_of(self.rank, rows)].copy_(shard)
        if self.world_size == 1:
            return Pending([])
        parts = [padded[self.rows_of(rank, rows)] for rank in range(self.world_size)]
        works = [
            dist.broadcast(part, group=self.process_group, group_src=rank, async_op=True)
            for rank, part in enumerate(parts)
            if len(part)
        ]
        return Pending(works, lambda: None, *parts)

    def gather(self, shard: Float[Tensor, "own ..."], rows: int) -> Float[Tensor, "rows ..."]:
        """The rows of all ranks, in the shard's type."""
        padded = shard.new_empty(self.padded_rows(rows), *shard.shape[1:])
        self.start_gather(shard, padded, rows).wait()
        return padded[:rows]

    def start_mean(self, gradient: Float[Tensor, "rows ..."], dtype: torch.dtype) -> Pending:
        """Start averaging over the ranks; the result is this rank's rows of the mean.

        Args:
            gradient: this rank's gradient of the whole matrix; it is sent in its own type.
            dtype: the type of the result. Over gloo the sum is taken in it as well.
        """
        rows = len(gradient)
        own = self.rows_of(self.rank, rows)
        length = own.stop - own.start
        if self.native:
            missing = self.padded_rows(rows) - rows
            sent = torch.cat([gradient, gradient.new_zeros(missing, *gradient.shape[1:])]) if missing else gradient
            total = gradient.new_empty(len(sent) // self.world_size, *gradient.shape[1:])
            works = [dist.reduce_scatter_single(total, sent, group=self.process_group, async_op=True)]
            return Pending(works, lambda: total[:length].to(dtype).div_(self.world_size), sent, total)
        slices = [self.rows_of(rank, rows) for rank in range(self.world_size)]
        received = gradient.new_empty(self.world_size, length, *gradient.shape[1:])
        work = dist.all_to_all_single(
            received.flatten(0, 1),
            gradient,
            output_split_sizes=[length] * self.world_size,
            input_split_sizes=[part.stop - part.start for part in slices],
            group=self.process_group,
            async_op=True,
        )

        def mean() -> Tensor:
            first, *others = received
            total = first.to(dtype, copy=True)  # does not keep the others' rows in memory
            for part in others:
                total += part
            return total.div_(self.world_size)

        return Pending([work], mean, gradient, received)
