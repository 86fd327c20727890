"""State of a divided model under the names and shapes of the whole one: gathered from the shards, and cut for them."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_systems.tensor_parallel.collectives import all_gathered, group_shard_range, take
from cs336_systems.tensor_parallel.layers import Shard, ShardedWeight


def shards(model: nn.Module) -> dict[str, Shard]:
    """How the model's divided parameters are divided, by name; tied ones under each of their names."""
    return {
        f"{name}.weight".removeprefix("."): module.shard
        for name, module in model.named_modules()
        if isinstance(module, ShardedWeight)
    }


def gather(name: str, tensor: Tensor, divided: Mapping[str, Shard], group: dist.ProcessGroup | None) -> Tensor:
    """The whole tensor, on the CPU of every rank, of the parameter `name` or of something of its shape."""
    if group is not None and name in divided:
        tensor = all_gathered(tensor.detach(), group, divided[name].dim, divided[name].size)
    # A copy in any case: what was gathered does not change with the next step.
    return tensor.detach().to("cpu", copy=True)


def cut(name: str, tensor: Tensor, divided: Mapping[str, Shard], group: dist.ProcessGroup | None) -> Tensor:
    """This rank's part of a whole tensor of the parameter `name`."""
    if group is None or name not in divided:
        return tensor
    shard = divided[name]
    return take(tensor, group_shard_range(shard.size, group), shard.dim)


def gather_state_dict(model: nn.Module, group: dist.ProcessGroup | None) -> dict[str, Tensor]:
    """The state dict of the whole model, on the CPU of every rank of the group. All of them call it.

    Args:
        model: this rank's shard, from `tensor_parallelize`.
        group: the ranks that share the model; None for a model that is not divided.
    """
    divided = shards(model)
    return {name: gather(name, tensor, divided, group) for name, tensor in model.state_dict().items()}


def load_full_state_dict(model: nn.Module, state: Mapping[str, Tensor], group: dist.ProcessGroup | None) -> None:
    """Load this rank's shard of a whole model's state dict, in place; it may come from any layout of ranks.

    Args:
        model: this rank's shard, from `tensor_parallelize`.
        state: what `gather_state_dict` returns, or a model's own `state_dict()`.
        group: the ranks that share the model; None for a model that is not divided.

    Raises:
        UsageError: a name is missing or unknown, or a shape is not that of this model.
    """
    own, divided = model.state_dict(), shards(model)
    if missing := sorted(own.keys() - state.keys()):
        raise UsageError(f"the state dict lacks {', '.join(missing)}; it is of another model")
    if unknown := sorted(state.keys() - own.keys()):
        raise UsageError(f"the state dict has {', '.join(unknown)}, which this model has not; it is of another model")
    for name, tensor in own.items():
        whole = list(tensor.shape)
        if group is not None and name in divided:
            whole[divided[name].dim] = divided[name].size
        if list(state[name].shape) != whole:
            raise UsageError(f"{name} has the shape {tuple(state[name].shape)}; allowed is {tuple(whole)}")
    model.load_state_dict({name: cut(name, state[name], divided, group) for name in own})


OptimizerState = dict[str, dict[str, Any]]
"""What an optimizer remembers of each parameter, by the parameter's name."""


def gather_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, group: dist.ProcessGroup | None
) -> OptimizerState:
    """The optimizer's state for the whole model, on the CPU of every rank of the group. All of them call it.

    Args:
        model: this rank's shard.
        optimizer: over its parameters; tensors in its state have the shape of their parameter or none.
        group: the ranks that share the model; None for a model that is not divided.
    """
    divided = shards(model)
    gathered: OptimizerState = {}
    for name, parameter in model.named_parameters():
        gathered[name] = {
            key: gather(name if _is_like(value, parameter) else "", value, divided, group)
            if isinstance(value, Tensor)
            else value
            for key, value in optimizer.state.get(parameter, {}).items()
        }
    return gathered


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: OptimizerState, group: dist.ProcessGroup | None
) -> None:
    """Load this rank's part of what `gather_optimizer_state` returned, whatever layout it came from.

    Args:
        model: this rank's shard.
        optimizer: over its parameters; its settings stay.
        state: by parameter name.
        group: the ranks that share the model; None for a model that is not divided.

    Raises:
        UsageError: a parameter's name is missing.
    """
    divided = shards(model)
    for name, parameter in model.named_parameters():
        if name not in state:
            raise UsageError(f"the optimizer state lacks {name}; it is of another model")
        optimizer.state[parameter] = {
            key: cut(name if value.ndim else "", value, divided, group).to(parameter.device, copy=True).contiguous()
            if isinstance(value, Tensor)
            else value
            for key, value in state[name].items()
        }


def _is_like(value: Tensor, parameter: Tensor) -> bool:
    return value.shape == parameter.shape
