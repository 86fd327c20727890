"""Fully sharded data parallelism: each rank keeps 1/W of every large weight, its gradient and its optimizer state.

ZeRO stage 3 (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, section 5.3), as PyTorch's FSDP (Zhao et al.
2023, https://arxiv.org/abs/2304.11277) does it, with one Linear or Embedding as the unit:

- before a layer's forward pass its weight is gathered from all ranks, and freed after it;
- before the layer's backward pass it is gathered again; once the weight's gradient is there, the weight is freed and
  the gradient averaged, of which each rank keeps its rows (reduce-scatter);
- while one layer computes, the weights of the next two are on their way.

All other parameters are small and stay whole on every rank; their gradients are averaged at the end of a step.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_basics.model import Embedding, Linear
from cs336_basics.trainer.gradient_clipping import global_gradient_norm
from cs336_systems.data_parallel.base import DataParallel
from cs336_systems.data_parallel.flat import average_flat
from cs336_systems.fsdp.access_trace import AccessTrace
from cs336_systems.fsdp.exchange import RowExchange
from cs336_systems.fsdp.sharded_weight import ShardedWeight

_REDUCTIONS_AT_ONCE = 2
"""Gradients on their way; each holds a whole gradient in memory."""


class FSDP(DataParallel):
    """A module whose Linear and Embedding weights are divided by rows among the ranks.

    The optimizer is made on `parameters()` of this wrapper: the shards and the small parameters that stay whole. After
    `backward()` and before `optimizer.step()` every rank calls `finish_gradient_synchronization()`; then each `.grad`
    has the shape and type of its parameter and is (this rank's part of) the average over the ranks. All ranks must run
    the same layers in the same order. Under `no_sync()` each rank keeps whole gradients. `state_dict()` and
    `load_state_dict()` are of this rank's shards; `full_state()` and `cs336_systems.fsdp.checkpoint` give the whole.

    Args:
        module: the model; the values of the group's first rank count. It is changed: its layers keep their type and
            name, but their `weight` is a shard, and the whole only while they compute.
        compute_dtype: layers compute and ranks exchange weights and gradients in this type, while shards and their
            gradients keep their own; None computes in the parameters' own type. Floating inputs of the layers are cast.
        process_group: the ranks to divide among; None is all of them.
        layer_types: the kinds of layers whose `weight` is divided; for models from elsewhere, torch's own too. Such a
            layer must read its weight in its own forward pass only.

    Raises:
        UsageError: a weight belongs to a layer of these kinds and to one of another kind as well.
    """

    def __init__(
        self,
        module: nn.Module,
        compute_dtype: torch.dtype | None = None,
        process_group: dist.ProcessGroup | None = None,
        layer_types: tuple[type[nn.Module], ...] = (Linear, Embedding),
    ) -> None:
        super().__init__(module, process_group)
        self.compute_dtype = compute_dtype
        self.layer_types = layer_types
        self.sharded: dict[nn.Parameter, ShardedWeight] = {}  # by shard
        self._shard_layers(RowExchange(process_group))
        self.trainable = [p for p in module.parameters() if p.requires_grad and p not in self.sharded]
        self._trace = AccessTrace()
        self._ahead: list[ShardedWeight] = []  # gathered for what comes next
        self._in_backward: ShardedWeight | None = None
        self._reducing: deque[ShardedWeight] = deque()

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """The model's output for this rank's part of the batch."""
        self.start_pass()
        return super().forward(*inputs, **keywords)

    def start_pass(self) -> None:
        """What a forward pass begins with; for those that call parts of `module` past this wrapper."""
        self._free_all()  # an optimizer step may have changed the shards
        self._trace.start(torch.is_grad_enabled())

    def start_batch(self) -> None:
        super().start_batch()
        self._finish_reductions()
        self._free_all()

    def finish_gradient_synchronization(self) -> None:
        self._finish_reductions()
        self._free_all()
        weights = list(self.sharded.values())
        # What was computed under no_sync(), and not again in the last backward pass, has not been sent.
        flags = self._share([p.grad is not None for p in self.trainable] + [w.has_unsent_gradient for w in weights])
        average_flat(self._with_gradients(flags[: len(self.trainable)]), self.process_group)
        for weight, flag in zip(weights, flags[len(self.trainable) :], strict=True):
            if flag:
                weight.start_reduction()
                weight.finish_reduction()

    def gather_full_params(self) -> dict[str, Tensor]:
        """All parameters whole, by the names they have in `module`; all ranks call it, and all get them.

        Tied parameters appear once, under the first of their names. The tensors are copies.
        """
        return {name: self._whole(parameter) for name, parameter in self.module.named_parameters()}

    def full_state(self) -> Iterator[tuple[str, Tensor]]:
        """The entries of the whole module's state dict, one by one; all ranks go through all of them."""
        for name, value in self.module.state_dict(keep_vars=True).items():
            yield name, self._whole(value)

    def load_full_params(self, values: dict[str, Tensor]) -> None:
        """Take this rank's part of what `gather_full_params` returned, on any number of ranks.

        Raises:
            UsageError: a name is missing or unknown, or a shape is another.
        """
        self._take(dict(self.module.named_parameters()), values)

    def load_full_state(self, state_dict: dict[str, Tensor]) -> None:
        """Take this rank's part of the whole module's state dict.

        Raises:
            UsageError: a name is missing or unknown, or a shape is another.
        """
        self._take(self.module.state_dict(keep_vars=True), state_dict)

    @torch.no_grad()
    def _take(self, own: dict[str, Tensor], values: dict[str, Tensor]) -> None:
        if differing := sorted(own.keys() ^ values.keys()):
            raise UsageError(f"the saved model and this one differ in {', '.join(differing)}")
        for name, value in own.items():
            weight = self.sharded.get(value)
            shape = value.shape if weight is None else weight.shape
            if values[name].shape != shape:
                raise UsageError(
                    f"the saved {name} has the shape {tuple(values[name].shape)}; this model's is {tuple(shape)}"
                )
            value.copy_(values[name] if weight is None else values[name][weight.rows])

    def _whole(self, value: Tensor) -> Tensor:
        weight = self.sharded.get(value)
        return value.detach().clone() if weight is None else weight.gather_rows(value)

    @torch.no_grad()
    def clip_grad_norm(self, max_norm: float) -> Float[Tensor, ""]:
        """Scale all gradients so that the norm of the whole gradient is at most `max_norm`; all ranks call it.

        Returns:
            The norm before, the same on all ranks.

        Raises:
            UsageError: `max_norm` is not above 0.
        """
        if not max_norm > 0:
            raise UsageError(f"max_norm must be above 0, got {max_norm}")
        square = global_gradient_norm(self.sharded).square().to(next(self.module.parameters()).device)
        dist.all_reduce(square, group=self.process_group)
        norm = (square + global_gradient_norm(self.trainable).square()).sqrt()
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as trainer.gradient_clipping does
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, factor)
        return norm

    def _shard_layers(self, exchange: RowExchange) -> None:
        by_weight: dict[nn.Parameter, ShardedWeight] = {}
        layers = [layer for layer in self.module.modules() if isinstance(layer, self.layer_types)]
        for layer in layers:
            if layer.weight not in by_weight:  # a tied weight is one
                weight = by_weight[layer.weight] = ShardedWeight(layer.weight, self.compute_dtype, exchange)
                self.sharded[weight.shard] = weight
                if weight.whole.requires_grad:
                    weight.whole.register_post_accumulate_grad_hook(partial(self._on_gradient, weight))
        for layer in layers:
            weight = by_weight[layer.weight]
            layer.weight = weight.shard
            layer.register_forward_pre_hook(partial(self._before_forward, weight), prepend=True)
            # Also after an error, and after checkpointing has cut the repeated forward pass short.
            layer.register_forward_hook(partial(self._after_forward, weight), always_call=True)
        for name, parameter in self.module.named_parameters():
            if parameter in by_weight:
                kinds = " or ".join(kind.__name__ for kind in self.layer_types)
                raise UsageError(f"{name} is also the weight of a {kinds} layer, so it cannot be sharded")

    def _before_forward(self, weight: ShardedWeight, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self._fetch(weight)
        # An entry in the instance's dictionary hides the registered parameter, the shard, which stays in parameters().
        layer.__dict__["weight"] = weight.whole
        if self.compute_dtype is None:
            return inputs
        return tuple(
            value.to(self.compute_dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
            for value in inputs
        )

    def _after_forward(self, weight: ShardedWeight, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        layer.__dict__.pop("weight", None)
        # The gradient of an embedding does not depend on its weight.
        if isinstance(output, Tensor) and output.requires_grad and not isinstance(layer, Embedding | nn.Embedding):
            output.register_hook(partial(self._before_backward, weight))
        self._release(weight)

    def _before_backward(self, weight: ShardedWeight, gradient: Tensor) -> None:
        # Autograd finishes one layer before it turns to the next.
        last, self._in_backward = self._in_backward, weight
        if last is not None and last is not weight:
            self._release(last)
        self._fetch(weight)

    def _on_gradient(self, weight: ShardedWeight, whole: nn.Parameter) -> None:
        if self._in_backward is weight:
            self._in_backward = None
        self._release(weight)
        weight.take_gradient()
        if self._synchronizing:
            if len(self._reducing) == _REDUCTIONS_AT_ONCE:
                self._reducing.popleft().finish_reduction()
            weight.start_reduction()
            self._reducing.append(weight)

    def _fetch(self, weight: ShardedWeight) -> None:
        """Have the weight there, and the next ones on their way."""
        last, self._ahead = self._ahead, self._trace.record(weight)
        for other in last:
            if other is not weight:
                self._release(other)  # does nothing if it is still ahead
        for needed in [weight, *self._ahead]:
            needed.start_gather()
        weight.wait()

    def _release(self, weight: ShardedWeight) -> None:
        """Free the weight unless it is needed again at once, or by the backward pass that repeats this forward pass."""
        if weight is not self._in_backward and weight not in self._ahead:
            weight.free()

    def _free_all(self) -> None:
        self._ahead, self._in_backward = [], None
        for weight in self.sharded.values():
            weight.free()

    def _finish_reductions(self) -> None:
        while self._reducing:
            self._reducing.popleft().finish_reduction()
