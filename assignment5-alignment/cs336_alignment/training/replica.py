"""What a training program sees of the policy's place in a process group; here, of a policy that is alone.

A policy that is spread over processes (data parallel, FSDP) is a subclass. All processes call each method together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cs336_alignment.rollouts.weight_sync import named_weights
from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.optimizer import make_optimizer
from cs336_alignment.training.processes import Processes
from cs336_basics.nn_utils import clip_gradient
from cs336_basics.trainer.gradient_clipping import global_gradient_norm


class Replica(Processes):
    """A module that is trained, its optimizer, and how gradients and state are gathered.

    Args:
        module: the policy (or a module around it, such as one with a value head). Which parameters need a gradient is
            read here, so adapters come before.
        config: the optimizer's settings, and `compile`.

    Attributes:
        module: as given: for its weights, for generation, for saving.
        wrapped: the module in what spreads it over processes: where rollout engines read whole weights.
        forward: what a training forward pass calls with the module's arguments; compiled or wrapped as needed.
        optimizer: over this process's trained parameters.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig) -> None:
        self.module = self.wrapped = module
        # With shapes that are dynamic from the start, the code does not depend on the shapes seen before.
        self.forward: nn.Module = torch.compile(module, dynamic=True) if config.compile else module
        self.optimizer: torch.optim.Optimizer = make_optimizer(module, config)

    @property
    def policy(self) -> nn.Module:
        """The language model in the module: what samples rollouts, and is saved in the end."""
        return self.module

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return next(self.module.parameters()).device

    def trained_parameters(self) -> list[nn.Parameter]:
        """Those of this process that the optimizer updates."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def count_parameters(self) -> tuple[int, int]:
        """How many parameters are trained, and how many there are, of the whole module."""
        parameters = list(self.module.parameters())
        return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

    @contextmanager
    def microbatch(self, is_last: bool) -> Iterator[None]:
        """The context of one forward and backward pass; only the last one of a batch exchanges gradients."""
        yield

    def finish_gradients(self) -> None:
        """Wait until the gradients are those of the sum of all processes' losses."""

    def clip_gradient(self, max_norm: float) -> Float[Tensor, ""]:
        """Clip by the norm of the whole gradient; 0 does not clip. Returns the norm before."""
        if max_norm == 0:
            return global_gradient_norm(self.trained_parameters())
        return clip_gradient(self.trained_parameters(), max_norm)

    def merged_weights(self) -> dict[str, Tensor]:
        """The weights of `wrapped` by the names of the plain model, adapters merged in: what is saved in the end.

        Whole in the process that writes, empty in the others. Tied weights are one tensor.
        """
        return dict(named_weights(self.wrapped)) if self.writes else {}

    def trained_state(self) -> dict[str, Tensor]:
        """The trained parameters (with LoRA: the adapters) and buffers of the whole module, by name."""
        # A tied weight has two names in the state dict.
        parameters = self.module.named_parameters(remove_duplicate=False)
        frozen = {name for name, parameter in parameters if not parameter.requires_grad}
        return {name: value for name, value in self.module.state_dict().items() if name not in frozen}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `trained_state` returned."""
        self.module.load_state_dict({**self.module.state_dict(), **state})

    def optimizer_state(self) -> dict[str, Any]:
        """The optimizer's state for the whole module."""
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Take over the moments that `optimizer_state` returned; settings given anew stay."""
        settings = [dict(group) for group in self.optimizer.param_groups]
        self._load_moments(state)
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update({name: value for name, value in setting.items() if name != "params"})

    def _load_moments(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
