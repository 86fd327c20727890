"""A policy that several processes train together, as the training programs see it.

Each process computes its share of the sum that the loss of a batch is. `cs336_systems` averages gradients over the
processes, so the average is multiplied by their number.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from cs336_alignment.lora import LoRALinear
from cs336_alignment.parallel.config import STRATEGIES, ParallelConfig
from cs336_alignment.parallel.processes import ProcessGroup
from cs336_alignment.policy import load_policy
from cs336_alignment.rollouts.weight_sync import named_weights
from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.replica import Replica
from cs336_systems.data_parallel import OverlappedDDP
from cs336_systems.data_parallel.base import DataParallel
from cs336_systems.fsdp import FSDP
from cs336_systems.fsdp.optimizer_state import full_optimizer_state, load_full_optimizer_state

SHARDED_LAYERS = (nn.Linear, nn.Embedding, LoRALinear)
"""The layers of Hugging Face's models, and what LoRA makes of them."""


def shard(module: nn.Module) -> FSDP:
    """Divide the weights of a Hugging Face model, or of one in another module, among the processes, in place.

    Returns:
        The wrapper.
    """
    sharded = FSDP(module, layer_types=SHARDED_LAYERS)
    # A pass begins with the model's body: log-probabilities and scores are computed past the wrapper's forward method.
    body = next(part for part in module.modules() if isinstance(part, PreTrainedModel) and part.base_model is part)
    body.register_forward_pre_hook(lambda body, inputs: sharded.start_pass())
    return sharded


def load_frozen(config: ParallelConfig, model: str) -> PreTrainedModel:
    """Load a model that is not trained, such as a reference, and spread it as the settings spread what is trained."""
    frozen = load_policy(model, config.device, config.dtype, attention=config.attention).requires_grad_(False)
    if config.parallel == "fsdp":
        shard(frozen)
    return frozen


class ProcessGroupReplica(ProcessGroup, Replica, ABC):
    """What both ways of spreading a policy share; to be made in every process of the default process group.

    Attributes:
        exchanged: the module in the wrapper that exchanges gradients.
    """

    exchanged: DataParallel

    def __init__(self, module: nn.Module, config: TrainingConfig) -> None:
        exchanged = self._wrap(module)
        ProcessGroup.__init__(self)
        Replica.__init__(self, module, config)
        self.wrapped = self.exchanged = exchanged

    @abstractmethod
    def _wrap(self, module: nn.Module) -> DataParallel:
        """The module in its wrapper."""

    @contextmanager
    def microbatch(self, is_last: bool) -> Iterator[None]:
        with nullcontext() if is_last else self.exchanged.no_sync():
            yield

    def finish_gradients(self) -> None:
        self.exchanged.finish_gradient_synchronization()
        gradients = [parameter.grad for parameter in self.trained_parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, self.world_size)


class DataParallelReplica(ProcessGroupReplica):
    """Every process holds the whole policy; gradients travel while the last backward pass of an update goes on."""

    def _wrap(self, module: nn.Module) -> OverlappedDDP:
        # Its hooks sit on the parameters, so forward passes need not go through the wrapper.
        return OverlappedDDP(module)


class ShardedReplica(ProcessGroupReplica):
    """Every process holds its rows of each large weight, gradient and moment (FSDP).

    State is gathered whole, so checkpoints are those of a single process.
    """

    def _wrap(self, module: nn.Module) -> FSDP:
        return shard(module)

    def count_parameters(self) -> tuple[int, int]:
        trained, total = super().count_parameters()
        for shard, weight in self.wrapped.sharded.items():
            elsewhere = weight.shape.numel() - shard.numel()
            trained, total = trained + elsewhere * shard.requires_grad, total + elsewhere
        return trained, total

    def clip_gradient(self, max_norm: float) -> Float[Tensor, ""]:
        return self.wrapped.clip_grad_norm(max_norm or math.inf)

    def trained_state(self) -> dict[str, Tensor]:
        trained = super().trained_state().keys()
        return {name: value.cpu() for name, value in self.wrapped.full_state() if name in trained}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        self.wrapped.load_full_state(dict(self.wrapped.full_state()) | state)

    def merged_weights(self) -> dict[str, Tensor]:
        # All processes go through all weights, since each is gathered from all of them.
        whole = {name: value.cpu() for name, value in named_weights(self.wrapped) if self.writes}
        names: dict[nn.Parameter, str] = {}
        for name, shard in self.module.state_dict(keep_vars=True).items():
            if name in whole:
                whole[name] = whole[names.setdefault(shard, name)]
        return whole

    def optimizer_state(self) -> dict[str, Any]:
        return full_optimizer_state(self.wrapped, self.optimizer, keep=self.writes)

    def _load_moments(self, state: dict[str, Any]) -> None:
        load_full_optimizer_state(self.wrapped, self.optimizer, state)


REPLICAS: dict[str, type[Replica]] = dict(zip(STRATEGIES, (Replica, DataParallelReplica, ShardedReplica), strict=True))
"""By the name that `--parallel` takes."""
