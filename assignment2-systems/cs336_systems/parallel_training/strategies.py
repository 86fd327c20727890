"""One interface to every way of spreading a model: gradients of the whole batch, and the state of the whole model.

All ranks call each method together. A state is always that of the whole model, under its own names, on the CPU: what
one strategy gathers, every other can load.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from cs336_basics.model import BasicsTransformerLM
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_basics.trainer.trainer import adamw_settings, decay_groups
from cs336_systems import tensor_parallel
from cs336_systems.data_parallel import BucketedDDP, FlatDDP, NaiveDDP, OverlappedDDP
from cs336_systems.data_parallel.base import DataParallel
from cs336_systems.fsdp import FSDP
from cs336_systems.fused.adamw import FusedAdamW
from cs336_systems.fused.use import language_model_loss as fused_loss
from cs336_systems.mesh import Mesh
from cs336_systems.parallel_training.config import Layout, ParallelTrainConfig
from cs336_systems.pipeline_parallel import PipelineParallel
from cs336_systems.sharded_optimizer import ShardedOptimizer
from cs336_systems.tensor_parallel.state import OptimizerState

State = dict[str, Tensor]
Tokens = Int[Tensor, "batch context"]
MOMENTS = ("exp_avg", "exp_avg_sq")


class Strategy(ABC):
    """A model that this rank trains its part of.

    Attributes:
        optimizer: over this rank's parameters.
        shares_evaluation: whether each data-parallel copy measures the loss of sequences of its own.
    """

    optimizer: torch.optim.Optimizer
    shares_evaluation = True

    @abstractmethod
    def backward(self, inputs: Tokens, targets: Tokens, parts: int) -> Float[Tensor, ""]:
        """Set the gradients of the mean loss over all copies' sequences; returns that loss.

        Args:
            inputs, targets: this copy's sequences.
            parts: how many equal parts to compute them in.
        """

    @abstractmethod
    def loss(self, inputs: Tokens, targets: Tokens) -> Float[Tensor, ""]:
        """The mean loss of this copy's sequences, for evaluation."""

    @abstractmethod
    def clip_gradient(self, max_norm: float) -> Float[Tensor, ""]:
        """Clip by the norm of the whole gradient, and return the norm before; infinity does not clip."""

    @abstractmethod
    def state(self) -> tuple[State, OptimizerState]:
        """The parameters of the whole model by name, and what the optimizer remembers of each."""

    @abstractmethod
    def load(self, parameters: State, optimizer_state: OptimizerState) -> None:
        """Take this rank's part of what `state` returned under any strategy."""


class Replicated(Strategy):
    """Copies that share a batch, each of them whole or divided by tensor parallelism (DDP, ZeRO-1, TP)."""

    def __init__(self, model: BasicsTransformerLM, config: ParallelTrainConfig, layout: Layout, mesh: Mesh) -> None:
        self.tensor_group = mesh.tensor_group if layout.sizes["tensor"] > 1 else None
        if self.tensor_group is not None:
            tensor_parallel.tensor_parallelize(model, self.tensor_group)
        if config.compile:
            model.compile(dynamic=False)
        self.module = model
        self.loss_fn = tensor_parallel.language_model_loss(model)
        self.fused = config.fused
        wrap = {
            "ddp-naive": NaiveDDP,
            "ddp-flat": FlatDDP,
            "ddp-bucketed": partial(BucketedDDP, bucket_size_mb=config.bucket_size_mb),
        }.get(layout.data_strategy, OverlappedDDP)
        self.replica = wrap(model, process_group=mesh.data_group)
        self.autocast = _autocast(config, model)
        self.data_group = mesh.data_group
        self.optimizer = _make_optimizer(model, config, layout, mesh)

    def backward(self, inputs: Tokens, targets: Tokens, parts: int) -> Float[Tensor, ""]:
        loss = _accumulate(self.replica, self.loss, inputs, targets, parts)
        return _mean_over(loss, self.data_group)

    def loss(self, inputs: Tokens, targets: Tokens) -> Float[Tensor, ""]:
        with self.autocast():
            if self.fused:  # past the logits, and so past the model's own forward pass
                return fused_loss(self.module, inputs, targets)
            return self.loss_fn(self.replica(inputs), targets)

    def clip_gradient(self, max_norm: float) -> Float[Tensor, ""]:
        return tensor_parallel.clip_gradient(self.module, max_norm, self.tensor_group)

    def state(self) -> tuple[State, OptimizerState]:
        whole = _whole_optimizer(self.module, self.optimizer)
        return (
            tensor_parallel.gather_state_dict(self.module, self.tensor_group),
            tensor_parallel.gather_optimizer_state(self.module, whole, self.tensor_group),
        )

    def load(self, parameters: State, optimizer_state: OptimizerState) -> None:
        tensor_parallel.load_full_state_dict(self.module, parameters, self.tensor_group)
        whole = _without_state(self.module, self.optimizer)
        tensor_parallel.load_optimizer_state(self.module, whole, optimizer_state, self.tensor_group)
        _take_over(self.optimizer, whole)


class Sharded(Strategy):
    """Copies that share a batch and also divide every weight, gradient and moment among them (FSDP)."""

    def __init__(self, model: BasicsTransformerLM, config: ParallelTrainConfig, layout: Layout, mesh: Mesh) -> None:
        self.tied = model.config.tie_embeddings
        self.autocast = _autocast(config, model)
        compute_dtype = torch.bfloat16 if config.dtype == "bfloat16" else None
        self.replica = FSDP(model, compute_dtype, process_group=mesh.data_group)
        self.data_group = mesh.data_group
        self.optimizer = _make_optimizer(self.replica.module, config, layout, mesh)

    def backward(self, inputs: Tokens, targets: Tokens, parts: int) -> Float[Tensor, ""]:
        loss = _accumulate(self.replica, self.loss, inputs, targets, parts)
        return _mean_over(loss, self.data_group)

    def loss(self, inputs: Tokens, targets: Tokens) -> Float[Tensor, ""]:
        with self.autocast():
            return cross_entropy(self.replica(inputs), targets)

    def clip_gradient(self, max_norm: float) -> Float[Tensor, ""]:
        return self.replica.clip_grad_norm(max_norm)

    def state(self) -> tuple[State, OptimizerState]:
        parameters = self._gather({})
        own = dict(self.replica.module.named_parameters())
        optimizer_state: OptimizerState = {name: {} for name in own}
        if any(self.optimizer.state.values()):
            gathered = {key: self._gather({p: self.optimizer.state[p][key] for p in own.values()}) for key in MOMENTS}
            for name, parameter in own.items():
                moments = {key: values[name] for key, values in gathered.items()}
                optimizer_state[name] = {"step": self.optimizer.state[parameter]["step"], **moments}
        if self.tied:
            parameters["lm_head.weight"] = parameters["token_embeddings.weight"]
        return parameters, optimizer_state

    def load(self, parameters: State, optimizer_state: OptimizerState) -> None:
        own = dict(self.replica.module.named_parameters())
        self.replica.load_full_params({name: parameters[name] for name in own})
        if not any(optimizer_state.values()):
            return
        for name, parameter in own.items():
            state = {key: torch.zeros_like(parameter) for key in MOMENTS}
            self.optimizer.state[parameter] = {"step": optimizer_state[name]["step"], **state}
        for key in MOMENTS:
            with _standing_in({p: self.optimizer.state[p][key] for p in own.values()}):
                self.replica.load_full_params({name: optimizer_state[name][key] for name in own})

    def _gather(self, stand_ins: dict[nn.Parameter, Tensor]) -> State:
        with _standing_in(stand_ins):
            return {name: value.cpu() for name, value in self.replica.gather_full_params().items()}


class Pipelined(Strategy):
    """Layers divided into stages, each of them whole or divided by tensor parallelism, in one or several copies."""

    shares_evaluation = False  # the pipeline averages losses over copies, so they must all have the same number

    def __init__(self, model: BasicsTransformerLM, config: ParallelTrainConfig, layout: Layout, mesh: Mesh) -> None:
        if layout.sizes["tensor"] > 1:
            tensor_parallel.tensor_parallelize(model, mesh.tensor_group)
        self.num_microbatches = config.num_microbatches
        self.stage = PipelineParallel(
            model,
            mesh.pipeline_group,
            config.schedule,
            data_group=mesh.data_group if layout.sizes["data"] > 1 else None,
            autocast_dtype=torch.bfloat16 if config.dtype == "bfloat16" else None,
        )
        self.optimizer = _make_optimizer(self.stage, config, layout, mesh)

    def backward(self, inputs: Tokens, targets: Tokens, parts: int) -> Float[Tensor, ""]:
        return self.stage.train_step(inputs, targets, self.num_microbatches)

    def loss(self, inputs: Tokens, targets: Tokens) -> Float[Tensor, ""]:
        return self.stage.evaluate(inputs, targets)

    def clip_gradient(self, max_norm: float) -> Float[Tensor, ""]:
        return self.stage.clip_gradient(max_norm)

    def state(self) -> tuple[State, OptimizerState]:
        whole = _whole_optimizer(self.stage, self.optimizer)
        return self.stage.gather_state_dict(), self.stage.gather_optimizer_state(whole)

    def load(self, parameters: State, optimizer_state: OptimizerState) -> None:
        self.stage.load_full_state_dict(parameters)
        whole = _without_state(self.stage, self.optimizer)
        self.stage.load_optimizer_state(whole, optimizer_state)
        _take_over(self.optimizer, whole)


def make_strategy(model: BasicsTransformerLM, config: ParallelTrainConfig, layout: Layout) -> Strategy:
    """Spread a model, which has the same weights on every rank; forget it afterwards."""
    mesh = Mesh(**layout.sizes)
    if layout.sizes["pipeline"] > 1:
        return Pipelined(model, config, layout, mesh)
    return (Sharded if layout.data_strategy == "fsdp" else Replicated)(model, config, layout, mesh)


def _make_optimizer(
    module: nn.Module, config: ParallelTrainConfig, layout: Layout, mesh: Mesh
) -> torch.optim.Optimizer:
    groups = decay_groups(module, config.weight_decay)
    kind = FusedAdamW if config.fused else AdamW
    if layout.data_strategy == "zero1":
        return ShardedOptimizer(groups, kind, process_group=mesh.data_group, **adamw_settings(config))
    return kind(groups, **adamw_settings(config))


def _autocast(config: ParallelTrainConfig, module: nn.Module) -> partial[AbstractContextManager]:
    device = next(module.parameters()).device.type
    return partial(torch.autocast, device, torch.bfloat16, enabled=config.dtype == "bfloat16")


def _accumulate(
    replica: DataParallel, compute_loss: Callable[[Tokens, Tokens], Tensor], inputs: Tokens, targets: Tokens, parts: int
) -> Float[Tensor, ""]:
    """Backward passes part by part, of which the last one lets the gradients travel; returns the mean loss."""
    total = torch.zeros((), device=inputs.device)
    for index, (part, part_targets) in enumerate(zip(inputs.chunk(parts), targets.chunk(parts), strict=True)):
        with nullcontext() if index == parts - 1 else replica.no_sync():
            loss = compute_loss(part, part_targets) / parts
            loss.backward()
        total += loss.detach()
    replica.finish_gradient_synchronization()
    return total


def _mean_over(value: Float[Tensor, ""], group: dist.ProcessGroup) -> Float[Tensor, ""]:
    dist.all_reduce(value, group=group)
    return value / dist.get_world_size(group)


def _without_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer itself, or, for one whose state is sharded, a plain one to receive the whole of it."""
    return AdamW(decay_groups(module, 0.0)) if isinstance(optimizer, ShardedOptimizer) else optimizer


def _whole_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An optimizer with the state of all of the module's parameters."""
    whole = _without_state(module, optimizer)
    if whole is not optimizer:
        whole.load_state_dict(optimizer.state_dict())
    return whole


def _take_over(optimizer: torch.optim.Optimizer, whole: torch.optim.Optimizer) -> None:
    """Give a sharded optimizer its part of the state in `whole`, and keep its own settings."""
    if whole is not optimizer:
        settings = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": whole.state_dict()["state"], "param_groups": settings})


class _standing_in(AbstractContextManager):
    """While open, parameters have other values: what gathers or loads parameters then does so with moments."""

    def __init__(self, values: dict[nn.Parameter, Tensor]) -> None:
        self.values = values

    def __enter__(self) -> None:
        self.before = {parameter: parameter.data for parameter in self.values}
        for parameter, value in self.values.items():
            parameter.data = value

    def __exit__(self, *error: object) -> None:
        for parameter, value in self.before.items():
            parameter.data = value
