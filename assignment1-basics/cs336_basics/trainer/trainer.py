"""One training run's state (model, optimizer, data order, counters) and what can be done to it: a step, a validation,
saving it whole and restoring it whole."""

import dataclasses
import math
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cs336_basics.accounting import num_parameters
from cs336_basics.check_pointing import read_checkpoint, save_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.model import BasicsTransformerLM, TransformerConfig
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_basics.trainer.data_loading import evenly_spaced_batches, get_batch
from cs336_basics.trainer.gradient_clipping import clip_gradient, global_gradient_norm
from cs336_basics.trainer.random_state import capture_random_state, restore_random_state
from cs336_basics.trainer.schedule import get_cosine_lr
from cs336_basics.training_config import TrainConfig, check_same_model


class DivergenceError(ArithmeticError):
    """The loss, the gradient or a weight is NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class StepOutcome:
    """What one optimizer step gave; the tensors are scalars still on the device.

    Attributes:
        loss: mean training loss of the step's batch, in nats per token.
        gradient_norm: global L2 norm before clipping.
        lr: the learning rate that was used.
    """

    loss: Float[Tensor, ""]
    gradient_norm: Float[Tensor, ""]
    lr: float


class Trainer:
    """A run that can be advanced, measured, saved and restored.

    A run that is spread over several processes is a subclass: each process has one, and all of them call the same
    methods in the same order.

    Args:
        config: the settings; paths and intervals in it are not used here.
        model_config: the model's shape.
        train_tokens, valid_tokens: flat arrays of token ids.

    Attributes:
        step: optimizer steps done. tokens: training tokens seen.
        num_parameters: of the whole model. num_devices: that train it together.
        writes: whether this process writes logs, reports and checkpoints.
        seconds: wall-clock time of the run so far, that before resuming included.

    Raises:
        UsageError: the device is not there.
    """

    def __init__(
        self,
        config: TrainConfig,
        model_config: TransformerConfig,
        train_tokens: Int[np.ndarray, " train"],
        valid_tokens: Int[np.ndarray, " valid"],
    ) -> None:
        self.config = config
        self.model_config = model_config
        self.device = resolve_device(config.device)
        self.train_tokens, self.valid_tokens = train_tokens, valid_tokens
        torch.manual_seed(config.seed)
        self.data_generator = np.random.default_rng(config.seed)
        self.num_parameters = num_parameters(model_config)
        self.num_devices = 1
        self.writes = True
        self._build()
        self.step = 0
        self.tokens = 0
        self._seconds_before = 0.0
        self._started = time.perf_counter()

    def _make_model(self) -> BasicsTransformerLM:
        """The model with its initial weights, drawn from torch's CPU generator."""
        return BasicsTransformerLM.from_config(self.model_config).to(self.device)

    def _build(self) -> None:
        """Make what a step needs: the model and the optimizer."""
        config = self.config
        self.model = self._make_model()
        # With dynamic shapes, the code compiled for a batch would depend on the shapes seen before it, and a resumed
        # run has seen others.
        self._forward = torch.compile(self.model, dynamic=False) if config.compile else self.model
        self.optimizer = AdamW(decay_groups(self.model, config.weight_decay), **adamw_settings(config))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far, time before resuming included."""
        return self._seconds_before + time.perf_counter() - self._started

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def train_step(self) -> StepOutcome:
        """Sample a batch and take one optimizer step on it.

        Raises:
            DivergenceError: the loss or the gradient is not finite (on the CPU; elsewhere looking at every step would
                make the device wait, so callers use `require_finite` when they read the numbers anyway).
        """
        config = self.config
        inputs, targets = self._next_batch()
        loss = self._backward(inputs, targets)
        norm = self._clip_gradient()
        lr = get_cosine_lr(self.step + 1, config.max_lr, config.min_lr, config.warm_up_it, config.train_steps)
        outcome = StepOutcome(loss, norm, lr)
        if self.device.type == "cpu":
            self.require_finite(outcome)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += config.batch_size * config.context_len
        return outcome

    def _next_batch(self) -> tuple[Int[Tensor, "batch context"], Int[Tensor, "batch context"]]:
        """The inputs and targets of the next step."""
        config = self.config
        return get_batch(self.train_tokens, config.batch_size, config.context_len, self.device, self.data_generator)

    def _backward(
        self, inputs: Int[Tensor, "batch context"], targets: Int[Tensor, "batch context"]
    ) -> Float[Tensor, ""]:
        """Compute the gradient of the mean loss, part by part; returns the loss."""
        parts = self.config.gradient_accumulation_steps
        loss = torch.zeros((), device=self.device)
        for part_inputs, part_targets in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
            with self._autocast():
                part_loss = self._loss(part_inputs, part_targets) / parts
            part_loss.backward()
            loss += part_loss.detach()
        return loss

    def _loss(self, inputs: Int[Tensor, "batch context"], targets: Int[Tensor, "batch context"]) -> Float[Tensor, ""]:
        """The mean loss of a batch."""
        return cross_entropy(self._forward(inputs), targets)

    def _clip_gradient(self) -> Float[Tensor, ""]:
        """Clip the gradient as configured; returns its norm before."""
        if self.config.clip_grad_norm:
            return clip_gradient(self.model.parameters(), self.config.clip_grad_norm)
        return global_gradient_norm(self.model.parameters())

    def agree(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process of the run says so; here there is one."""
        return list(flags)

    def whole_model(self) -> BasicsTransformerLM:
        """The model with all of its weights, for use outside of training."""
        return self.model

    def require_finite(self, outcome: StepOutcome) -> None:
        """Raise DivergenceError if the outcome's loss or gradient norm is NaN or infinite."""
        for name, value in (("loss", outcome.loss.item()), ("gradient norm", outcome.gradient_norm.item())):
            if not math.isfinite(value):
                raise DivergenceError(f"the {name} became {value} at learning rate {outcome.lr:.3g}")

    @torch.no_grad()
    def evaluate(self, batch_size: int | None = None, num_batches: int | None = None) -> float:
        """Mean loss over fixed, evenly spaced windows of the validation data, in nats per token.

        Args:
            batch_size: windows per batch; None for as many as a training batch's part holds.
            num_batches: None for the configured number.
        """
        config = self.config
        batch_size = batch_size or config.batch_size // config.gradient_accumulation_steps
        num_batches = num_batches or config.val_batches
        total, count = torch.zeros((), device=self.device), 0
        for inputs, targets in evenly_spaced_batches(
            self.valid_tokens, batch_size, config.context_len, num_batches, self.device
        ):
            with self._autocast():
                total += self._loss(inputs, targets) * len(inputs)
            count += len(inputs)
        return total.item() / count

    def save(self, path: str | os.PathLike, **extra: Any) -> None:
        """Write everything the run needs to go on, and `extra`, to a checkpoint.

        Raises:
            DivergenceError: a weight or a moment is not finite; nothing is written.
        """
        require_finite_state(self.model, self.optimizer)
        self._write(self.model, self.optimizer, path, extra)

    def _write(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, path: str | os.PathLike, extra: dict[str, Any]
    ) -> None:
        """Write the checkpoint of the whole model and its optimizer."""
        save_checkpoint(
            model,
            optimizer,
            self.step,
            path,
            train_config={**self.config.to_dict(), "resume_ckp": None},
            random_state=capture_random_state(),
            data_state=self.data_generator.bit_generator.state,
            tokens_seen=self.tokens,
            seconds=self.seconds,
            **extra,
        )

    def restore(self, path: str | os.PathLike) -> dict[str, Any]:
        """Put the run where it was when the checkpoint was saved.

        Returns:
            The checkpoint's dictionary, for what else was saved in it.

        Raises:
            UsageError: the file is no checkpoint of the training program, or one of another model.
        """
        checkpoint = read_checkpoint(Path(path))
        needed = (
            "data_state", "iteration", "model_config", "optimizer_state_dict", "random_state", "seconds", "tokens_seen",
        )  # fmt: skip
        if missing := [name for name in needed if name not in checkpoint]:
            raise UsageError(f"{path} cannot be resumed: it lacks {', '.join(missing)}; give one the trainer wrote")
        check_same_model(self.model_config, TransformerConfig.from_dict(checkpoint["model_config"]))
        self._load(checkpoint["model_state_dict"], checkpoint["optimizer_state_dict"])
        self.step, self.tokens = checkpoint["iteration"], checkpoint["tokens_seen"]
        self._seconds_before, self._started = checkpoint["seconds"], time.perf_counter()
        self.data_generator.bit_generator.state = checkpoint["data_state"]
        restore_random_state(checkpoint["random_state"])
        return checkpoint

    def _load(self, model_state: dict[str, Tensor], optimizer_state: dict[str, Any]) -> None:
        """Take over the weights, and the moments but not the settings: a flag given anew takes effect."""
        self.model.load_state_dict(model_state)
        settings = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(optimizer_state)
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update({name: value for name, value in setting.items() if name != "params"})


def require_finite_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise DivergenceError if a weight of the model or a moment of its optimizer is NaN or infinite."""
    for name, parameter in model.named_parameters():
        moments = [value for value in optimizer.state.get(parameter, {}).values() if isinstance(value, Tensor)]
        if not all(torch.isfinite(tensor).all() for tensor in (parameter, *moments)):
            raise DivergenceError(f"the weights or moments of {name} became NaN or infinite")


def adamw_settings(config: TrainConfig) -> dict[str, Any]:
    """AdamW's keyword arguments; its decay is in `decay_groups`."""
    return {"lr": config.max_lr, "betas": (config.beta1, config.beta2), "eps": config.eps}


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices decay, vectors (the gains of norms) do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
