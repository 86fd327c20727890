"""Experiments and budgets as tables for a terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cs336_scaling.client.answers import Budget, Experiment, best
from cs336_scaling.schemas.edition_2025 import PreviousRun

STATUS_STYLE = {"queued": "dim", "running": "bold blue", "completed": "green", "failed": "red"}


def budget_view(used: float, reserved: float, total: float, unit: str) -> RenderableType:
    """A bar and a sentence: what is used, reserved, left."""
    left = max(0.0, total - used - reserved)
    share = 0.0 if total <= 0 else 100 * (used + reserved) / total
    numbers = f"used {used:,.6g}  reserved {reserved:,.6g}  left {left:,.6g}  of {total:,.6g} {unit}"
    lines = Table.grid()
    lines.add_row(ProgressBar(total=100, completed=min(100.0, share), width=60))
    lines.add_row(Text(numbers))
    return lines


def budget_2026_view(budget: Budget, experiments: Sequence[Experiment]) -> RenderableType:
    """The budget of the 2026 edition; what the server counts as used holds the reservations."""
    reserved = sum(one.reserved_seconds for one in experiments if not one.finished)
    return budget_view(budget.used_seconds - reserved, reserved, budget.total_budget_seconds, "s")


def experiments_table(experiments: Sequence[Experiment]) -> Table:
    """One row per experiment; the best completed one is marked."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, side in (
        ("experiment", "left"), ("status", "left"), ("parameters", "right"), ("layers x width", "right"),
        ("batch", "right"), ("peak lr", "right"), ("tokens", "right"), ("steps", "right"), ("loss", "right"),
        ("runtime", "right"), ("note", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=side, no_wrap=name != "note")
    winner = best(experiments)
    for one in experiments:
        table.add_row(*_cells(one, one is winner))
    return table


def _cells(one: Experiment, is_best: bool) -> list[RenderableType]:
    status = Text(one.status_type, STATUS_STYLE.get(one.status_type, ""))
    if one.status_type == "queued" and one.queue_position is not None:
        status.append(f" #{one.queue_position}")
    config = one.training_config
    shape = ["?"] * 6
    if config is not None:
        architecture = config.architecture_config
        shape = [
            f"{architecture.num_parameters:,}",
            f"{architecture.num_hidden_layers} x {architecture.hidden_size}",
            str(config.train_batch_size),
            f"{config.optimizer_config.lr_scheduler.peak_value:g}",
            f"{config.total_train_tokens:,}",
            f"{one.val_steps[-1] if one.val_steps else 0:,} / {config.num_steps:,}",
        ]
    loss = one.loss if one.loss is not None else next((x for x in reversed(one.val_losses) if x is not None), None)
    note = "best" if is_best else one.message or one.failure_reason or ""
    return [
        one.experiment_id[:8],
        status,
        *shape,
        "" if loss is None else Text(f"{loss:.4f}", "bold green" if is_best else ""),
        "" if one.runtime_seconds is None else f"{one.runtime_seconds:,.0f} s",
        Text(note),
    ]


def runs_table(runs: Iterable[PreviousRun]) -> Table:
    """One row per run of the 2025 edition."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("train FLOPs", "parameters", "layers x width", "heads", "batch", "lr", "loss"):
        table.add_column(name, justify="right")
    for run in runs:
        table.add_row(
            f"{run.train_flops:.0e}", f"{run.num_parameters:,}", f"{run.num_layers} x {run.d_model}",
            str(run.num_heads), str(run.batch_size), f"{run.learning_rate:g}", f"{run.loss:.4f}",
        )  # fmt: skip
    return table


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=160)
