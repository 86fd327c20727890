"""The optimizer over what is trained, and its learning-rate schedule."""

import torch
from torch import nn

from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.rmsprop import RMSprop
from cs336_basics.optimizer import AdamW, get_cosine_lr
from cs336_basics.trainer.trainer import decay_groups


def make_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer over the parameters that need a gradient.

    Under AdamW matrices decay; norms, biases and other vectors do not.
    """
    groups = decay_groups(module, config.weight_decay)
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "rmsprop":
        # Groups differ in their decay alone, which RMSprop has not.
        return RMSprop([p for group in groups for p in group["params"]], config.lr, config.beta2, config.eps)
    return AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)


def learning_rate(update: int, total_updates: int, config: TrainingConfig) -> float:
    """The learning rate of an update: linear warm-up, then constant, half a cosine, or a line down to `min_lr`.

    Args:
        update: counted from 0.
        total_updates: of the whole run.
    """
    position = update + 1  # the first update of a warm-up is not wasted on a rate of 0
    warmup_steps = round(config.warmup_fraction * total_updates) if config.warmup_fraction else config.warmup_steps
    if position < warmup_steps:
        return config.lr * position / warmup_steps
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine":
        return get_cosine_lr(position, config.lr, config.min_lr, warmup_steps, total_updates)
    left = max(0, total_updates - position) / max(1, total_updates - warmup_steps)
    return config.min_lr + left * (config.lr - config.min_lr)
