"""State of a divided model under the names and shapes of the whole one: gathered from the shards, and cut for them.

Parameters are recognized by identity, so a wrapper around the model (data parallelism, say) does not disturb.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_systems.tensor_parallel.collectives import all_gathered, group_shard_range, take
from cs336_systems.tensor_parallel.layers import Shard, ShardedWeight


def shards(model: nn.Module) -> dict[nn.Parameter, Shard]:
    """How each of the model's divided parameters is divided."""
    return {module.weight: module.shard for module in model.modules() if isinstance(module, ShardedWeight)}


def parameter_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """The name of each parameter in the model's state dict; of a tied one, the first."""
    names: dict[nn.Parameter, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, nn.Parameter):
            names.setdefault(tensor, name)
    return names


def _gather(tensor: Tensor, shard: Shard | None, group: dist.ProcessGroup | None) -> Tensor:
    """The whole tensor on the CPU, from the ranks' parts if it is divided."""
    whole = tensor.detach()
    if shard is not None and group is not None:
        whole = all_gathered(whole, group, shard.dim, shard.size)
    # A copy in any case: what was gathered does not change with the next step.
    return whole.to("cpu", copy=True)


def _cut(tensor: Tensor, shard: Shard | None, group: dist.ProcessGroup | None) -> Tensor:
    """This rank's part of a whole tensor."""
    if shard is None or group is None:
        return tensor
    return take(tensor, group_shard_range(shard.size, group), shard.dim)


def gather_state_dict(model: nn.Module, group: dist.ProcessGroup | None) -> dict[str, Tensor]:
    """The state dict of the whole model, on the CPU of every rank of the group. All of them call it.

    Args:
        model: this rank's shard, from `tensor_parallelize`.
        group: the ranks that share the model; None for a model that is not divided.
    """
    divided = shards(model)
    state = model.state_dict(keep_vars=True)
    return {name: _gather(tensor, divided.get(tensor), group) for name, tensor in state.items()}


def load_full_state_dict(model: nn.Module, state: Mapping[str, Tensor], group: dist.ProcessGroup | None) -> None:
    """Load this rank's shard of a whole model's state dict, in place; it may come from any layout of ranks.

    Args:
        model: this rank's shard, from `tensor_parallelize`.
        state: what `gather_state_dict` returns, or a model's own `state_dict()`.
        group: the ranks that share the model; None for a model that is not divided.

    Raises:
        UsageError: a name is missing or unknown, or a shape is not that of this model.
    """
    own, divided = model.state_dict(keep_vars=True), shards(model)
    if missing := sorted(own.keys() - state.keys()):
        raise UsageError(f"the state dict lacks {', '.join(missing)}; it is of another model")
    if unknown := sorted(state.keys() - own.keys()):
        raise UsageError(f"the state dict has {', '.join(unknown)}, which this model has not; it is of another model")
    for name, tensor in own.items():
        shape = list(tensor.shape)
        if tensor in divided:
            shape[divided[tensor].dim] = divided[tensor].size
        if list(state[name].shape) != shape:
            raise UsageError(f"{name} has the shape {tuple(state[name].shape)}; allowed is {tuple(shape)}")
    model.load_state_dict({name: _cut(state[name], divided.get(tensor), group) for name, tensor in own.items()})


OptimizerState = dict[str, dict[str, Any]]
"""What an optimizer remembers of each parameter, by the parameter's name: moments of its shape, and plain values."""


def gather_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, group: dist.ProcessGroup | None
) -> OptimizerState:
    """The optimizer's state for the whole model, on the CPU of every rank of the group. All of them call it.

    Args:
        model: this rank's shard.
        optimizer: over its parameters; tensors in its state have the shape of their parameter, or none.
        group: the ranks that share the model; None for a model that is not divided.
    """
    divided = shards(model)

    def gathered(parameter: nn.Parameter, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return _gather(value, divided.get(parameter) if value.ndim else None, group)

    return {
        name: {key: gathered(parameter, value) for key, value in optimizer.state.get(parameter, {}).items()}
        for parameter, name in parameter_names(model).items()
    }


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

    def own_part(parameter: nn.Parameter, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        part = _cut(value, divided.get(parameter) if value.ndim else None, group)
        return part.to(parameter.device, copy=True).contiguous()

    names = parameter_names(model)
    if missing := sorted(set(names.values()) - state.keys()):
        raise UsageError(f"the optimizer state lacks {', '.join(missing)}; it is of another model")
    for parameter, name in names.items():
        optimizer.state[parameter] = {key: own_part(parameter, value) for key, value in state[name].items()}
