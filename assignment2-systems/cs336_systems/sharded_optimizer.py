"""Optimizer state sharding, ZeRO stage 1 (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, section 5.1).

Every rank holds all parameters and all gradients, but the optimizer's state (for Adam twice the parameters) of its own
part of the parameters only. It updates that part and sends the new values to the others.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cs336_basics.command_line import UsageError

_NOT_SETTINGS = ("params", "param_names")
"""What a parameter group holds besides the settings of the optimizer."""


class ShardedOptimizer(torch.optim.Optimizer):
    """An optimizer that keeps the state of 1/world_size of the parameters on each rank.

    Each group's parameters are dealt out from the largest to the smallest, each to the rank that has the fewest
    elements so far. All ranks call every method, with the same arguments; gradients are averaged beforehand (by a
    data-parallel wrapper). Settings may be changed in `param_groups` between steps, as learning-rate schedules do.

    Args:
        params: tensors or parameter groups, as for any optimizer.
        optimizer_cls: the optimizer that updates a rank's part.
        process_group: the ranks among which the state is divided; None is all of them.
        keywords: settings for `optimizer_cls`.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        optimizer_cls: type[torch.optim.Optimizer],
        *,
        process_group: dist.ProcessGroup | None = None,
        **keywords: Any,
    ) -> None:
        self.process_group = process_group
        self.rank = dist.get_rank(process_group)
        self._optimizer_cls = optimizer_cls
        self._keywords = keywords
        self._local: torch.optim.Optimizer | None = None  # made with the first group
        self._owner: dict[Tensor, int] = {}
        self._elements = [0] * dist.get_world_size(process_group)
        super().__init__(params, dict(keywords))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group with settings of its own, and divide its parameters among the ranks."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        # Python's sort keeps the order of equals, so all ranks come to the same division.
        for parameter in sorted(group["params"], key=torch.numel, reverse=True):
            rank = self._elements.index(min(self._elements))
            self._owner[parameter] = rank
            self._elements[rank] += parameter.numel()
        local = _settings(group) | {"params": [p for p in group["params"] if self._owner[p] == self.rank]}
        if self._local is None:
            self._local = self._optimizer_cls([local], **self._keywords)
            self.defaults = self._local.defaults
        else:
            self._local.add_param_group(local)
        # What the optimizer adds by default is visible, and can be changed, here too.
        for name, value in _settings(self._local.param_groups[-1]).items():
            group.setdefault(name, value)
        self.state = self._local.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update this rank's part of the parameters, and exchange the new values.

        Args:
            closure: recomputes the loss and the gradients, and returns the loss.
        """
        self._pass_settings_on()
        loss = self._local.step(closure)
        works = [
            dist.broadcast(parameter.data, group=self.process_group, group_src=rank, async_op=True)
            for parameter, rank in self._owner.items()
        ]
        for work in works:
            work.wait()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of the whole optimizer, in main memory, equal on all ranks; all of them must call it.

        It has the form of `optimizer_cls`'s own, so it can be loaded by that optimizer, or by this one on another
        number of ranks.
        """
        self._pass_settings_on()
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Any]] = {}
        for number, parameter in enumerate(parameters):
            entries = self._broadcast_state(parameter)
            if entries:
                state[number] = entries
        numbers = iter(range(len(parameters)))
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            | {"params": [next(numbers) for _ in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, here or in a run with another number of ranks; keeps this rank's part.

        Raises:
            UsageError: the groups do not have the same numbers of parameters.
        """
        saved = [len(group["params"]) for group in state_dict["param_groups"]]
        own = [len(group["params"]) for group in self.param_groups]
        if saved != own:
            raise UsageError(f"the saved optimizer has groups of {saved} parameters; this one has groups of {own}")
        local_state: dict[int, Any] = {}
        local_groups = []
        count = 0
        for group, saved_group in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update(_settings(saved_group))
            start = count
            for parameter, number in zip(group["params"], saved_group["params"], strict=True):
                if self._owner[parameter] == self.rank:
                    if number in state_dict["state"]:
                        local_state[count] = state_dict["state"][number]
                    count += 1
            local_groups.append(_settings(saved_group) | {"params": list(range(start, count))})
        self._local.load_state_dict({"state": local_state, "param_groups": local_groups})
        self.state = self._local.state

    def _pass_settings_on(self) -> None:
        for local, group in zip(self._local.param_groups, self.param_groups, strict=True):
            local.update(_settings(group))

    def _broadcast_state(self, parameter: Tensor) -> dict[str, Any]:
        """One parameter's state, sent by its owner to all."""
        owner = self._owner[parameter]
        own = self._local.state.get(parameter, {}) if owner == self.rank else {}
        # First what there is, tensors without their values; then the values.
        message = [{name: value.to("meta") if isinstance(value, Tensor) else value for name, value in own.items()}]
        dist.broadcast_object_list(message, group=self.process_group, group_src=owner, device=parameter.device)
        result = {}
        for name, value in message[0].items():
            if isinstance(value, Tensor):
                sent = own[name] if own else torch.empty_like(value, device=parameter.device)
                # Step counts may lie in main memory, which NCCL cannot send from.
                sent = sent.to(parameter.device).contiguous()
                dist.broadcast(sent, group=self.process_group, group_src=owner)
                result[name] = sent.clone() if sent.device.type == "cpu" else sent.cpu()
            else:
                result[name] = value
        return result


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in _NOT_SETTINGS}
