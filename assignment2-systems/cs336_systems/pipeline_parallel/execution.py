"""One run of a stage through its schedule: passes, and messages to the neighbors between them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest

import torch
import torch.distributed as dist
from torch import Tensor

from cs336_systems.pipeline_parallel.schedules import Action, Transfer, transfers
from cs336_systems.pipeline_parallel.stages import PipelineStage


class Execution:
    """The tensors in flight while a stage works through its actions.

    Args:
        stage: the layers.
        group: the pipeline's ranks, in the order of their stages.
        inputs: token ids, one tensor per microbatch; the first stage reads them.
        targets: likewise; the last stage reads them.
        loss_fn: f(logits, targets), the mean loss of a microbatch.
        forward_context: makes a context for the forward passes, such as autocast.
    """

    def __init__(
        self,
        stage: PipelineStage,
        group: dist.ProcessGroup,
        inputs: Sequence[Tensor],
        targets: Sequence[Tensor],
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        forward_context: Callable[[], AbstractContextManager],
    ) -> None:
        self.stage, self.group = stage, group
        self.inputs, self.targets, self.loss_fn = inputs, targets, loss_fn
        self.forward_context = forward_context
        example = next(stage.parameters())
        # The residual stream has the type of the embeddings, under autocast too.
        self._activation = {"size": stage.activation_shape(*inputs[0].shape), "dtype": example.dtype}
        self._device = example.device
        self.loss = torch.zeros((), dtype=torch.promote_types(example.dtype, torch.float32), device=self._device)
        # By the action that needs (received) or gave (sent) the tensor.
        self._received: dict[Action, Tensor] = {}
        self._results: dict[Action, Tensor] = {}
        # What each microbatch's backward pass starts from and ends at: its output and its input.
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def run(self, actions: Sequence[Action]) -> Tensor:
        """Do all actions, and return the mean loss on the last stage (0 on others)."""
        plan = transfers(actions, self.stage.stage, self.stage.num_stages)
        for batch, action in zip_longest(plan, actions):
            self._exchange(batch)
            if action is not None:
                (self._forward if action.kind == "forward" else self._backward)(action)
        return self.loss

    def _exchange(self, batch: Sequence[Transfer]) -> None:
        if not batch:
            return
        operations = []
        for transfer in batch:
            if transfer.is_send:
                tensor, operation = self._results.pop(transfer.action), dist.isend
            else:
                tensor, operation = torch.empty(**self._activation, device=self._device), dist.irecv
                self._received[transfer.action] = tensor
            operations.append(dist.P2POp(operation, tensor, group=self.group, group_peer=transfer.peer))
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    def _forward(self, action: Action) -> None:
        index = action.microbatch
        x = self.inputs[index] if self.stage.is_first else self._received.pop(action)
        if not self.stage.is_first and torch.is_grad_enabled():
            x.requires_grad_()
        with self.forward_context():
            output = self.stage(x)
            if self.stage.is_last:
                output = self.loss_fn(output, self.targets[index]) / len(self.inputs)
                self.loss += output.detach()
        if not self.stage.is_last:
            self._results[action] = output.detach().contiguous()
        if torch.is_grad_enabled():
            self._kept[index] = (x, output)

    def _backward(self, action: Action) -> None:
        x, output = self._kept.pop(action.microbatch)
        gradient = None if self.stage.is_last else self._received.pop(action)
        if output.requires_grad:  # not so while everything up to here is frozen
            output.backward(gradient)
        if not self.stage.is_first:
            self._results[action] = x.grad.contiguous()
