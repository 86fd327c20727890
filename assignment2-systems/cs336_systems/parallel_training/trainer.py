"""Assignment 1's trainer in each of several processes, which train one model together by a `Strategy`."""

import math
import os
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from cs336_basics.model import BasicsTransformerLM
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.data_loading import evenly_spaced_batches, get_batch
from cs336_basics.trainer.trainer import DivergenceError, Trainer, adamw_settings, decay_groups, require_finite_state
from cs336_systems.attention_choice import attention_function
from cs336_systems.checkpointing.blockwise import checkpoint_layers
from cs336_systems.fused.adamw import FusedAdamW
from cs336_systems.fused.use import language_model_loss, use_fused_pieces
from cs336_systems.parallel_training.strategies import OptimizerState, State, make_strategy


class SystemsTrainer(Trainer):
    """Assignment 1's trainer for one process, with this package's attention, checkpointing and fused pieces."""

    def _make_model(self) -> BasicsTransformerLM:
        config = self.config
        attention = None if config.attention is None else attention_function(config.attention)
        model = BasicsTransformerLM.from_config(self.model_config, attention_fn=attention).to(self.device)
        if config.fused:
            use_fused_pieces(model, attention=False)
        return model if config.checkpoint_blocks is None else checkpoint_layers(model, config.checkpoint_blocks)

    def _build(self) -> None:
        super()._build()
        if self.config.fused:
            self.optimizer = FusedAdamW(
                decay_groups(self.model, self.config.weight_decay), **adamw_settings(self.config)
            )

    def _loss(self, inputs: Int[Tensor, "batch context"], targets: Int[Tensor, "batch context"]) -> Float[Tensor, ""]:
        return language_model_loss(self.model, inputs, targets) if self.config.fused else super()._loss(inputs, targets)


class ParallelTrainer(SystemsTrainer):
    """This process's part of a run; arguments, methods and errors are those of `Trainer`.

    All processes draw the same batches, those of a single process with the same seed, and each data-parallel copy takes
    its own sequences of them. Loss and gradient norm are those of the whole batch, so a NaN on one rank is a NaN on
    all. Rank 0 writes; its checkpoints are those of assignment 1's trainer.
    """

    def _build(self) -> None:
        self.layout = self.config.layout(dist.get_world_size())
        self.num_devices = dist.get_world_size()
        self.writes = dist.get_rank() == 0
        self.strategy = make_strategy(self._make_model(), self.config, self.layout)
        self.optimizer = self.strategy.optimizer
        # Flags live on the CPU; asking for them there lets a GPU go on computing.
        self._control_group = dist.new_group(backend="gloo")
        model_size = self.layout.sizes["pipeline"] * self.layout.sizes["tensor"]
        self._copies, self._copy = self.layout.sizes["data"], dist.get_rank() // model_size

    def _next_batch(self) -> tuple[Int[Tensor, "share context"], Int[Tensor, "share context"]]:
        config = self.config
        share = config.batch_size // self._copies
        rows = slice(self._copy * share, (self._copy + 1) * share)
        return get_batch(
            self.train_tokens, config.batch_size, config.context_len, self.device, self.data_generator, rows
        )

    def _backward(self, inputs: Int[Tensor, "share context"], targets: Int[Tensor, "share context"]) -> Tensor:
        return self.strategy.backward(inputs, targets, self.config.gradient_accumulation_steps)

    def _clip_gradient(self) -> Float[Tensor, ""]:
        return self.strategy.clip_gradient(self.config.clip_grad_norm or math.inf)

    @torch.no_grad()
    def evaluate(self, batch_size: int | None = None, num_batches: int | None = None) -> float:
        """As `Trainer.evaluate`; the copies share each batch."""
        config = self.config
        batch_size = batch_size or config.batch_size // config.gradient_accumulation_steps
        sums = torch.zeros(2, device=self.device)
        for inputs, targets in evenly_spaced_batches(
            self.valid_tokens, batch_size, config.context_len, num_batches or config.val_batches, self.device
        ):
            rows = self._evaluation_rows(len(inputs))
            # Every rank computes something at every turn, since layers may have to be gathered from all of them.
            taken = rows or range(1)
            loss = self.strategy.loss(inputs[taken.start : taken.stop], targets[taken.start : taken.stop])
            sums += torch.stack((loss * len(rows), loss.new_tensor(len(rows))))
        dist.all_reduce(sums)  # the ranks of one copy count alike, so their number cancels
        total, count = sums.tolist()
        return total / count

    def _evaluation_rows(self, length: int) -> range:
        if not self.strategy.shares_evaluation:
            return range(length)
        each = -(-length // self._copies)
        return range(min(self._copy * each, length), min((self._copy + 1) * each, length))

    def agree(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process says so; all of them call it."""
        mine = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(mine, dist.ReduceOp.MAX, group=self._control_group)
        return mine.bool().tolist()

    def whole_model(self) -> BasicsTransformerLM:
        """On rank 0 the whole model; on the others one of the same shape, with weights of no meaning."""
        return self._whole(*self.strategy.state())[0].to(self.device)

    def _whole(self, parameters: State, optimizer_state: OptimizerState) -> tuple[BasicsTransformerLM, AdamW]:
        """A single process's model and optimizer in that state, on the CPU."""
        with torch.random.fork_rng(devices=[]):  # the run's own random numbers are not used up
            model = BasicsTransformerLM.from_config(self.model_config)
        optimizer = AdamW(decay_groups(model, self.config.weight_decay), **adamw_settings(self.config))
        if self.writes:
            model.load_state_dict(parameters)
            for name, parameter in model.named_parameters():
                if optimizer_state.get(name):  # there is none before the first step
                    optimizer.state[parameter] = optimizer_state[name]
            for group in optimizer.param_groups:
                group["lr"] = self.optimizer.param_groups[0]["lr"]
        return model, optimizer

    def save(self, path: str | os.PathLike, **extra: Any) -> None:
        """As `Trainer.save`: gather the whole state, and let rank 0 write it."""
        model, optimizer = self._whole(*self.strategy.state())
        problems: list[str | None] = [None]
        if self.writes:
            try:
                require_finite_state(model, optimizer)
            except DivergenceError as error:
                problems = [str(error)]
        dist.broadcast_object_list(problems, 0, group=self._control_group)
        if problems[0] is not None:
            raise DivergenceError(problems[0])
        if self.writes:
            self._write(model, optimizer, path, extra)

    def _load(self, model_state: dict[str, Tensor], optimizer_state: dict[str, Any]) -> None:
        with torch.device("meta"):
            model = BasicsTransformerLM.from_config(self.model_config)
        names = {parameter: name for name, parameter in model.named_parameters()}
        in_order = [names[p] for group in decay_groups(model, self.config.weight_decay) for p in group["params"]]
        by_name = {name: optimizer_state["state"].get(index, {}) for index, name in enumerate(in_order)}
        self.strategy.load(model_state, by_name)
