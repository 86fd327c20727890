"""What the data-parallel wrappers share: equal weights at the start, and what the ranks tell each other at the end.

Each rank computes the mean loss over its own examples. The mean of the ranks' gradients is the gradient of the mean
loss over all examples only if every rank has the same number of them, so that is checked.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cs336_basics.command_line import UsageError


def broadcast_tensors(tensors: Iterable[Tensor], process_group: dist.ProcessGroup | None) -> None:
    """Overwrite the tensors of every rank with those of the group's first rank."""
    pending = []
    for tensor in tensors:
        value = tensor.detach()
        sent = value.contiguous()
        pending.append((dist.broadcast(sent, group=process_group, group_src=0, async_op=True), value, sent))
    for work, value, sent in pending:
        work.wait()
        if sent is not value:
            value.copy_(sent)


def number_of_examples(values: Iterable[Any]) -> int:
    """The length of the first tensor among a model's inputs; 0 if there is none."""
    return next((len(value) for value in values if isinstance(value, Tensor) and value.ndim), 0)


class DataParallel(nn.Module, ABC):
    """A module whose gradients are averaged over the ranks of a process group; the base of the wrappers.

    Parameters and buffers become those of the group's first rank. After `backward()` and before `optimizer.step()`
    every rank calls `finish_gradient_synchronization()`. A parameter that got a gradient on some ranks only counts as
    zero on the others; one that got none anywhere keeps `grad=None`, as it would in a single process.

    Args:
        module: the model, the same on each rank but for its values. Which parameters need a gradient is read here.
        process_group: the ranks to average over; None is all of them.

    Attributes:
        module: the model as it was given; its names have no prefix.
        trainable: the distinct parameters that need a gradient, in the model's order.
    """

    def __init__(self, module: nn.Module, process_group: dist.ProcessGroup | None = None) -> None:
        super().__init__()
        self.module = module
        self.process_group = process_group
        self.world_size = dist.get_world_size(process_group)
        self.rank = dist.get_rank(process_group)
        self.trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._synchronizing = True
        self._examples = 0
        broadcast_tensors([*module.parameters(), *module.buffers()], process_group)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """The model's output for this rank's part of the batch."""
        if torch.is_grad_enabled():
            self._examples += number_of_examples([*inputs, *keywords.values()])
        return self.module(*inputs, **keywords)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes in here add to the local gradients and send nothing (gradient accumulation).

        Run the last backward pass of a step outside, then call `finish_gradient_synchronization()`.
        """
        before, self._synchronizing = self._synchronizing, False
        try:
            yield
        finally:
            self._synchronizing = before

    def start_batch(self) -> None:
        """Forget what a step left that did not reach its end; all ranks call it, before the forward pass."""
        self._examples = 0

    @abstractmethod
    def finish_gradient_synchronization(self) -> None:
        """Wait until the gradients are the average over the ranks; all ranks call it after the backward pass.

        Raises:
            UsageError: the ranks had different numbers of examples.
        """

    def state_dict(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        """The state dict of `module`, without a prefix."""
        return self.module.state_dict(*arguments, **keywords)

    def load_state_dict(self, state_dict: dict[str, Any], *arguments: Any, **keywords: Any) -> Any:
        """Load the state dict of `module`; every rank loads the same one."""
        return self.module.load_state_dict(state_dict, *arguments, **keywords)

    def _share(self, flags: list[bool]) -> list[bool]:
        """For each flag whether any rank has set it; on the way, check that the batches were even.

        Raises:
            UsageError: the ranks had different numbers of examples since the last call.
        """
        device = next(self.module.parameters()).device
        mine = torch.tensor([self._examples, *flags], device=device)
        of_all = mine.new_empty(self.world_size * len(mine))
        dist.all_gather_single(of_all, mine, group=self.process_group)
        rows = of_all.view(self.world_size, -1).cpu()
        self._examples = 0
        if len(set(examples := rows[:, 0].tolist())) > 1:
            raise UsageError(
                f"the ranks had batches of {', '.join(map(str, examples))} examples; all must have the same number, "
                "so drop the uneven last batch or pad it"
            )
        return rows[:, 1:].any(dim=0).tolist()

    def _used_anywhere(self) -> list[nn.Parameter]:
        """The trainable parameters with a gradient on any rank, zeros where this rank has none."""
        return self._with_gradients(self._share([parameter.grad is not None for parameter in self.trainable]))

    def _with_gradients(self, used: list[bool]) -> list[nn.Parameter]:
        """Those of `trainable` that are used on some rank; they get a gradient of zero where this rank has none."""
        parameters = [parameter for parameter, flag in zip(self.trainable, used, strict=True) if flag]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return parameters
