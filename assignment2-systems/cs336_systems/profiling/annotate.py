"""Named ranges around the parts of a model, put on from outside: NVTX for Nsight Systems, or the profiler's own.

A range is any context manager made from a name. Modules get theirs by forward hooks, and the three steps of attention
by an `attention_fn` that marks them, so the model's own code knows nothing of profiling. When the block ends, the model
is what it was.
"""

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cs336_basics.model import CausalMultiHeadSelfAttention
from cs336_basics.model.attention import AttentionFunction
from cs336_basics.model.functional import causal_mask, softmax, upcast

RangeMaker = Callable[[str], AbstractContextManager]


def no_range(name: str) -> AbstractContextManager:
    """A range that nobody records."""
    return nullcontext()


def nvtx_range(name: str) -> AbstractContextManager:
    """A range that Nsight Systems shows on the line of this thread (`nsys profile --trace=cuda,nvtx`)."""
    return torch.cuda.nvtx.range(name)


def profiler_range(name: str) -> AbstractContextManager:
    """A range in the traces of `torch.profiler`."""
    return torch.profiler.record_function(name)


def default_range(device: torch.device) -> RangeMaker:
    """NVTX ranges on a CUDA device, none elsewhere."""
    return nvtx_range if device.type == "cuda" else no_range


def attention_in_ranges(make_range: RangeMaker) -> AttentionFunction:
    """Plain attention whose three steps are ranges: "attention scores", "attention softmax", "attention values".

    It computes what `cs336_basics.model.functional.scaled_dot_product_attention` does with or without the causal mask.
    """

    def attention(
        q: Float[Tensor, "... heads seq d_head"],
        k: Float[Tensor, "... heads seq d_head"],
        v: Float[Tensor, "... heads seq d_head"],
        is_causal: bool,
    ) -> Float[Tensor, "... heads seq d_head"]:
        with make_range("attention scores"):
            scores = upcast(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]))
            if is_causal:
                mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
                scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        with make_range("attention softmax"):
            weights = softmax(scores).to(v.dtype)
        with make_range("attention values"):
            return weights @ v

    return attention


@contextmanager
def annotate_modules(
    model: nn.Module, make_range: RangeMaker, *, split_attention: bool = False
) -> Generator[None, None, None]:
    """Within the block, every forward pass of a module of `model` is a range with the module's dotted name.

    Args:
        model: any module; its own range is named after its class.
        make_range: what makes a range; with `no_range` nothing at all is put on the model.
        split_attention: also show the steps within attention; this replaces its inner function by the plain form.
    """
    if make_range is no_range:
        yield
        return
    open_ranges: list[AbstractContextManager] = []

    def enter(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple) -> None:
            open_ranges.append(make_range(name))
            open_ranges[-1].__enter__()

        return hook

    def leave(module: nn.Module, inputs: tuple, output: object) -> None:
        open_ranges.pop().__exit__(None, None, None)

    handles = []
    replaced: list[tuple[CausalMultiHeadSelfAttention, AttentionFunction]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            continue  # it has no forward pass
        handles.append(module.register_forward_pre_hook(enter(name or type(model).__name__)))
        # A module that runs out of memory closes its range too.
        handles.append(module.register_forward_hook(leave, always_call=True))
        if split_attention and isinstance(module, CausalMultiHeadSelfAttention):
            replaced.append((module, module.attention_fn))
            module.attention_fn = attention_in_ranges(make_range)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, attention_fn in replaced:
            module.attention_fn = attention_fn
