"""How large a model and how many steps fit into the time: measured on the machine at hand."""

import time
from pathlib import Path

import torch

from cs336.quickstart.telling import Clock
from cs336_basics.command_line import UsageError
from cs336_basics.train import TrainConfig, measure_step_seconds

# From small to large: (layers, d_model, heads, batch size). The largest that gets enough steps is taken.
MODELS = ((2, 64, 4, 16), (3, 96, 4, 16), (4, 128, 4, 32), (4, 256, 8, 32), (6, 512, 8, 64))
ENOUGH_STEPS = 600
MOST_STEPS = 20_000
MOST_EPOCHS = 30
"""Passes over the training text, after which a small model only learns it by heart."""
LEAST_STEPS = 20
CONTEXT_LENGTH = 128
LEAST_CONTEXT = 16
RESERVE_SHARE, RESERVE_S = 0.12, 4.0
"""Of the whole time, and seconds on top: for the samples, the curves and the report."""
PLANNING_SHARE = 0.05
THREADS_TRIAL_S, CLEARLY_FASTER = 0.5, 1.25
SAFETY = 0.85
"""Validation and checkpoints take time as well, and machines are not always equally fast."""


def make_plan(
    out: Path, vocab_size: int, train_tokens: int, valid_tokens: int, device: str, seed: int, clock: Clock
) -> tuple[TrainConfig, float]:
    """Choose the model and the number of steps.

    Args:
        out: the quickstart's folder.
        vocab_size: of the tokenizer.
        train_tokens, valid_tokens: how many tokens there are; the context must fit into either part twice.
        device: where to train.
        seed: of the weights and the data order.
        clock: tells how much time is left.

    Returns:
        The training settings, and the measured seconds per step.

    Raises:
        UsageError: the text has too few tokens for even the shortest context.
    """
    context = CONTEXT_LENGTH
    while context > min(train_tokens, valid_tokens) // 2:
        context //= 2
    if context < LEAST_CONTEXT:
        raise UsageError(f"the text has only {valid_tokens} tokens to test on; give a longer --text")
    began_s = clock.elapsed_s
    chosen = None
    for layers, width, heads, batch in MODELS:
        settings = {
            "data_dir": str(out / "data"),
            "tokenizer_dir": str(out / "tokenizer"),
            "save_ckp_path": str(out / "checkpoints"),
            "run_dir": str(out / "run"),
            "vocab_size": vocab_size,
            "context_len": context,
            "num_layers": layers,
            "d_model": width,
            "num_heads": heads,
            "batch_size": batch,
            "max_lr": min(4e-3, 0.4 / width),
            "keep_checkpoints": 1,
            "no_wandb": True,
            "device": device,
            "seed": seed,
        }
        seconds = measure_step_seconds(TrainConfig(**settings))
        training_s = _training_seconds(clock)
        steps = int(SAFETY * training_s / seconds)
        if chosen is not None and steps < ENOUGH_STEPS:
            break
        chosen = settings, seconds, steps
        if steps < 1.5 * ENOUGH_STEPS or clock.elapsed_s - began_s > PLANNING_SHARE * clock.budget_s:
            break  # the next one would not get enough, or planning itself takes too long
        if steps * batch * context > MOST_EPOCHS * train_tokens:
            break  # a larger model would learn so little text by heart
    settings, seconds, steps = chosen
    most = MOST_EPOCHS * train_tokens // (settings["batch_size"] * context)
    steps = max(LEAST_STEPS, min(steps, most, MOST_STEPS))
    settings |= {
        "train_steps": steps,
        "max_minutes": max(_training_seconds(clock), 1.0) / 60,
        "log_intervals": max(1, steps // 200),
        "val_interval": max(1, steps // 8),
        "val_batches": 4,
        "save_intervals": max(1, steps // 5),
        "warm_up_it": max(1, steps // 20),
    }
    return TrainConfig(**settings), seconds


def choose_threads() -> None:
    """Let torch use one core unless all are clearly faster now: on a busy machine threads wait for each other."""
    rates = {}
    for threads in (torch.get_num_threads(), 1):
        torch.set_num_threads(threads)
        rates[threads] = _products_per_second()
    if max(rates) > 1 and rates[max(rates)] > CLEARLY_FASTER * rates[1]:
        torch.set_num_threads(max(rates))


def _products_per_second() -> float:
    """The rate of matrix products of a small model's size, watched for a moment."""
    left, right = torch.randn(4096, 96), torch.randn(96, 256)
    left @ right  # the first one starts the threads
    count, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < THREADS_TRIAL_S:
        torch.relu(left @ right)
        count += 1
    return count / seconds


def _training_seconds(clock: Clock) -> float:
    return clock.left_s - RESERVE_SHARE * clock.budget_s - RESERVE_S
