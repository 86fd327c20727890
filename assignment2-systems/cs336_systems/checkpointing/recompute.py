"""A function whose intermediate results are dropped, and computed again when the backward pass needs them.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (https://arxiv.org/abs/1604.06174). Only the inputs
are kept. The second run draws the same random numbers and casts to the same types as the first, so the gradients are
those without checkpointing, bit for bit.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from cs336_basics.trainer.random_state import capture_random_state, restore_random_state


@contextmanager
def _random_state(state: dict[str, Any]) -> Generator[None, None, None]:
    """Draw from the generators as they were in `state`; afterwards they go on as if nothing had been drawn."""
    current = capture_random_state()
    restore_random_state(state)
    try:
        yield
    finally:
        restore_random_state(current)


class _Autocast:
    """The autocast settings of this moment, to be applied again."""

    def __init__(self, device_types: set[str]) -> None:
        self._settings = {
            device_type: (torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type))
            for device_type in device_types
        }

    @contextmanager
    def again(self) -> Generator[None, None, None]:
        """Autocast as it was, but without its cache of cast weights.

        A weight that was cast without autograd, in the first run, has no path for a gradient: the second run must not
        take that copy from the cache.
        """
        with ExitStack() as stack:
            for device_type, (enabled, dtype) in self._settings.items():
                stack.enter_context(torch.autocast(device_type, dtype, enabled, cache_enabled=False))
            yield


def _leaves(inputs: Iterable[Tensor | None]) -> list[Tensor | None]:
    """The inputs as the start of a graph of their own."""
    return [None if x is None else x.detach().requires_grad_(x.requires_grad) for x in inputs]


def _drop(tensor: Tensor) -> None:
    """Keep nothing of a tensor that autograd wants to save."""


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Tensor], keep_random_state: bool, always: Tensor, *inputs: Tensor | None
    ) -> Tensor:
        ctx.run = run
        ctx.random_state = capture_random_state() if keep_random_state else None
        ctx.autocast = _Autocast({"cpu", *(x.device.type for x in inputs if x is not None)})
        ctx.save_for_backward(*inputs)
        # With autograd on, though nothing of it is kept: modules may compute another way without it, with other bits.
        with torch.enable_grad(), saved_tensors_hooks(_drop, _drop), ctx.autocast.again():
            return run(*_leaves(inputs)).detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        inputs = _leaves(ctx.saved_tensors)
        with ExitStack() as stack:
            if ctx.random_state is not None:
                stack.enter_context(_random_state(ctx.random_state))
            with torch.enable_grad(), ctx.autocast.again():
                output = ctx.run(*inputs)
        if output.requires_grad:
            # Gradients of parameters are added to `.grad` here and now, by whatever hooks the modules have for that.
            torch.autograd.backward(output, grad_output)
        return None, None, None, *(None if x is None else x.grad for x in inputs)


def recompute(run: Callable[..., Tensor], *inputs: Tensor | None, keep_random_state: bool = True) -> Tensor:
    """`run(*inputs)`, of which only the inputs are kept for the backward pass.

    Calls may be nested: `run` may call `recompute` itself. Where autograd is off this is a plain call.

    Args:
        run: a function with one tensor as its result. It must not change its inputs, and must do the same each time.
        inputs: its arguments. Parameters that `run` uses need not be among them.
        keep_random_state: let the second run draw the random numbers of the first. Without randomness, False is faster.

    Returns:
        The result. Its backward pass adds the gradients of parameters to their `.grad`, so ask for gradients with
        `backward()`; `torch.autograd.grad` of a parameter finds no path to it.
    """
    if not torch.is_grad_enabled():
        return run(*inputs)
    # If no input needs a gradient, parameters inside may: this tensor makes the result need one in any case.
    always = torch.empty(0, requires_grad=True)
    return _Recompute.apply(run, keep_random_state, always, *inputs)
