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
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from cs336_alignment.lora import LoRALinear
from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.replica import Replica
from cs336_systems.data_parallel import OverlappedDDP
from cs336_systems.data_parallel.base import DataParallel
from cs336_systems.fsdp import FSDP
from cs336_systems.fsdp.optimizer_state import full_optimizer_state, load_full_optimizer_state

SHARDED_LAYERS = (nn.Linear, nn.Embedding, LoRALinear)
"""The layers of Hugging Face's models, and what LoRA makes of them."""


def shard(model: PreTrainedModel) -> FSDP:
    """Divide a Hugging Face model's weights among the processes, in place; returns the wrapper."""
    sharded = FSDP(model, layer_types=SHARDED_LAYERS)
    # Log-probabilities are computed by the model's body and its head, past the wrapper's forward method.
    model.base_model.register_forward_pre_hook(lambda body, inputs: sharded.start_pass())
    return sharded


class ProcessGroupReplica(Replica, ABC):
    """What both ways of spreading a policy share; to be made in every process of the default process group.

    Attributes:
        wrapped: the module in the wrapper that exchanges gradients.
    """

    wrapped: DataParallel

    def __init__(self, module: nn.Module, config: TrainingConfig) -> None:
        wrapped = self._wrap(module)
        super().__init__(module, config)
        self.wrapped = wrapped
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        # Flags live on the CPU; asking for them there lets a GPU go on computing.
        self._control_group = dist.new_group(backend="gloo")

    @abstractmethod
    def _wrap(self, module: nn.Module) -> DataParallel:
        """The module in its wrapper."""

    @contextmanager
    def microbatch(self, is_last: bool) -> Iterator[None]:
        with nullcontext() if is_last else self.wrapped.no_sync():
            yield

    def finish_gradients(self) -> None:
        self.wrapped.finish_gradient_synchronization()
        gradients = [parameter.grad for parameter in self.trained_parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, self.world_size)

    def sum_over_processes(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        total = value.clone()
        dist.all_reduce(total)
        return total

    def agree(self, flag: bool) -> bool:
        mine = torch.tensor(int(flag))
        dist.all_reduce(mine, dist.ReduceOp.MAX, group=self._control_group)
        return bool(mine)

    def gather(self, values: list[Any]) -> list[Any]:
        """The lists of all processes, one behind the other, in every process."""
        lists: list[list[Any]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(lists, values, group=self._control_group)
        return [value for part in lists for value in part]


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

    def optimizer_state(self) -> dict[str, Any]:
        return full_optimizer_state(self.wrapped, self.optimizer, keep=self.writes)

    def _load_moments(self, state: dict[str, Any]) -> None:
        load_full_optimizer_state(self.wrapped, self.optimizer, state)


REPLICAS: dict[str, type[Replica]] = {"none": Replica, "ddp": DataParallelReplica, "fsdp": ShardedReplica}
"""By the name that `--parallel` takes."""
