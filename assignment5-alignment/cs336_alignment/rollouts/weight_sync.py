"""Reading a policy's weights one by one, as the plain model has them, whatever it is wrapped in while it trains."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cs336_alignment.lora import LoRALinear
from cs336_basics.command_line import UsageError
from cs336_systems.data_parallel.base import DataParallel
from cs336_systems.fsdp import FSDP


def unwrap(policy: nn.Module) -> nn.Module:
    """The model inside `torch.compile`, data parallelism (ours or torch's) and FSDP."""
    while True:
        if isinstance(policy, DataParallel | nn.parallel.DistributedDataParallel):
            policy = policy.module
        elif isinstance(compiled := getattr(policy, "_orig_mod", None), nn.Module):
            policy = compiled
        else:
            return policy


@torch.no_grad()
def named_weights(policy: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights by the names of the plain model: gathered from all ranks, adapters merged in.

    One at a time, so that only one gathered or merged weight is in memory at once; the others are the policy's own, not
    copies. Under FSDP all ranks go through all of them.
    """
    model = unwrap(policy)
    for name, value in _state(policy, model):
        layer_name, _, kind = name.rpartition(".")
        layer = model.get_submodule(layer_name)
        if not isinstance(layer, LoRALinear):
            yield name, value.detach()
        elif kind not in ("lora_a", "lora_b"):
            yield name, layer.merged_weight(value) if kind == "weight" else value.detach()


def copy_weights(policy: nn.Module, target: nn.Module) -> None:
    """Copy a policy's weights into a plain model of the same shape, on any device and of any type.

    Raises:
        UsageError: the two differ in the names or the shapes of their weights.
    """
    own = target.state_dict()
    for name, value in named_weights(policy):
        if name not in own or own[name].shape != value.shape:
            found = f"the shape {tuple(own[name].shape)}" if name in own else "no such weight"
            raise UsageError(f"the policy's {name} has the shape {tuple(value.shape)}; the engine's model has {found}")
        own.pop(name).copy_(value)
    if own:
        raise UsageError(f"the policy lacks {', '.join(own)}, which the engine's model has")


def _state(policy: nn.Module, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    while policy is not model:
        if isinstance(policy, FSDP):
            return policy.full_state()
        policy = policy.module if hasattr(policy, "module") else policy._orig_mod
    return iter(model.state_dict().items())
