"""The state of an optimizer on sharded parameters, as a single process would have it.

What has the shape of a shard (Adam's moments) is this rank's rows of something that has the shape of the weight; the
rest (step counts) is the same on every rank.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_systems.fsdp.sharded_weight import ShardedWeight
from cs336_systems.fsdp.wrapper import FSDP


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Its parameters in the order in which its state dict numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def divided_by_rows(value: Any, weight: ShardedWeight | None) -> bool:
    """Whether an entry of the state of `weight` (None: a parameter that is not sharded) is divided as the weight is."""
    return weight is not None and isinstance(value, Tensor) and value.ndim > 0


def full_optimizer_state(model: FSDP, optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, Any]:
    """The optimizer's state dict as a single process would have it, in main memory; all ranks call it.

    Args:
        model: the sharded model.
        optimizer: made on its parameters.
        keep: False on ranks that only take part in the gathering; they get no state.
    """
    state_dict = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for number, parameter in enumerate(parameters_of(optimizer)):
        weight = model.sharded.get(parameter)
        for name, value in state_dict["state"].get(number, {}).items():
            whole = weight.gather_rows(value) if divided_by_rows(value, weight) else value
            if keep:
                state.setdefault(number, {})[name] = whole.cpu() if isinstance(whole, Tensor) else whole
    return {"state": state, "param_groups": state_dict["param_groups"]}


def load_full_optimizer_state(model: FSDP, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Take this rank's part of a state dict in the form of a single process.

    Args:
        model, optimizer: as for `full_optimizer_state`.
        state_dict: its result, on any number of ranks, or the state of a single process.

    Raises:
        UsageError: the state belongs to another number of parameters, or to weights of other shapes.
    """
    parameters = parameters_of(optimizer)
    saved = [number for group in state_dict["param_groups"] for number in group["params"]]
    if len(saved) != len(parameters):
        raise UsageError(f"the saved optimizer has {len(saved)} parameters; this one has {len(parameters)}")
    state: dict[int, dict[str, Any]] = {}
    for number, parameter in zip(saved, parameters, strict=True):
        weight = model.sharded.get(parameter)
        shape = parameter.shape if weight is None else weight.shape
        for name, value in state_dict["state"].get(number, {}).items():
            if isinstance(value, Tensor) and value.ndim > 0 and value.shape != shape:
                raise UsageError(
                    f"the saved optimizer's {name} of parameter {number} has the shape {tuple(value.shape)}; "
                    f"this parameter's is {tuple(shape)}"
                )
            # A copy, since a view would keep the whole in memory.
            part = value[weight.rows].clone() if divided_by_rows(value, weight) else value
            state.setdefault(number, {})[name] = part
    optimizer.load_state_dict({"state": state, "param_groups": state_dict["param_groups"]})
