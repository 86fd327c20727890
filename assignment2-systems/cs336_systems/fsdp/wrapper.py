"""The module that shards the layers of another over the ranks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class FSDP(nn.Module):
    """Signatures of the wrapper."""

    def __init__(
        self,
        module: nn.Module,
        compute_dtype: torch.dtype | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        raise NotImplementedError

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        return self.module(*inputs, **keywords)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes in here add to local gradients and send none."""
        raise NotImplementedError

    def finish_gradient_synchronization(self) -> None:
        """Wait until every `.grad` is this rank's part of the average over the ranks."""
        raise NotImplementedError

    def gather_full_params(self) -> dict[str, Tensor]:
        """All parameters whole, by their unprefixed names, on every rank."""
        raise NotImplementedError

    def clip_grad_norm(self, max_norm: float) -> Tensor:
        """Scale the gradients so that their norm over all ranks is at most `max_norm`; returns the norm before."""
        raise NotImplementedError
