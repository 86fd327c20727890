"""One weight matrix of which each rank keeps only its rows.

The layer computes with a second, whole parameter whose storage is empty most of the time. Autograd's graph refers to
that parameter, so a weight that was freed after the forward pass is filled in again, in the same place, before the
backward pass uses it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cs336_systems.fsdp.exchange import Pending, RowExchange


class ShardedWeight:
    """A weight's shard, and the whole weight while it is needed.

    Args:
        weight: the whole weight, equal on all ranks.
        compute_dtype: the type the whole weight, its gradient and their messages have; None is the weight's own.
        exchange: gathers the weight and averages its gradient.

    Attributes:
        shard: the rows this rank owns, in the weight's own type; what the optimizer updates.
        whole: the parameter that layers compute with; its values are there while `is_alive`.
        shape: that of the whole weight.
    """

    def __init__(
        self, weight: Float[nn.Parameter, "rows ..."], compute_dtype: torch.dtype | None, exchange: RowExchange
    ) -> None:
        self.shape = weight.shape
        self._exchange = exchange
        self.rows = exchange.rows_of(exchange.rank, len(weight))
        # A copy, since a view would keep the whole weight in memory.
        self.shard = nn.Parameter(weight.detach()[self.rows].clone(), requires_grad=weight.requires_grad)
        self._padded = torch.empty(
            exchange.padded_rows(len(weight)),
            *weight.shape[1:],
            dtype=compute_dtype or weight.dtype,
            device=weight.device,
        )
        self._bytes = self._padded.nbytes
        # `.data` has a version counter of its own: filling `_padded` does not count as changing what autograd saved.
        self.whole = nn.Parameter(self._padded[: len(weight)].data, requires_grad=weight.requires_grad)
        self._gathering: Pending | None = None
        self._reducing: Pending | None = None
        self._unsent: Tensor | None = None
        self.is_alive = False
        self._padded.untyped_storage().resize_(0)

    def start_gather(self) -> None:
        """Start filling the whole weight in, unless it is there or on its way."""
        if self.is_alive:
            return
        self.is_alive = True
        self._padded.untyped_storage().resize_(self._bytes)
        self._gathering = self._exchange.start_gather(self.shard.detach(), self._padded, len(self.whole))

    def wait(self) -> None:
        """Wait until the whole weight is there."""
        if self._gathering is not None:
            self._gathering.wait()
            self._gathering = None

    def free(self) -> None:
        """Give the whole weight's memory back."""
        self.wait()
        self._padded.untyped_storage().resize_(0)
        self.is_alive = False

    def gather_rows(self, part: Float[Tensor, "own ..."]) -> Float[Tensor, "rows ..."]:
        """A new tensor with the rows of all ranks; all of them call it.

        Args:
            part: this rank's rows: the shard itself, or what an optimizer keeps for it.
        """
        return self._exchange.gather(part.detach(), len(self.whole))

    @property
    def has_unsent_gradient(self) -> bool:
        """Whether there is a gradient that this rank has not shared yet."""
        return self._unsent is not None

    def take_gradient(self) -> None:
        """Add the gradient that the backward pass left on the whole weight to the one not yet shared."""
        gradient, self.whole.grad = self.whole.grad, None
        # Sums over several backward passes are kept in the shard's type, which may be wider.
        self._unsent = gradient if self._unsent is None else self._unsent.to(self.shard.dtype).add_(gradient)

    def start_reduction(self) -> None:
        """Start averaging the gradient over the ranks; zero where this rank has none. All ranks call it."""
        self.finish_reduction()
        gradient, self._unsent = self._unsent, None
        if gradient is None:
            gradient = torch.zeros(self.shape, dtype=self._padded.dtype, device=self._padded.device)
        self._reducing = self._exchange.start_mean(gradient.to(self._padded.dtype), self.shard.dtype)

    def finish_reduction(self) -> None:
        """Wait for the average and add this rank's rows of it to `shard.grad`."""
        if self._reducing is None:
            return
        mean = self._reducing.wait()
        self._reducing = None
        self.shard.grad = mean if self.shard.grad is None else self.shard.grad.add_(mean)
