"""How far each kind of parallelism scales for a given model, batch and hardware: a table and a plot.

With no arguments it answers for the handout's XXL configuration, a batch of 4 million tokens and H100s on NVLink.
"""

import argparse
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.curves import figure_png, tidy
from cs336_systems import parallel_accounting as accounting
from cs336_systems.hardware import PRESETS, Hardware, hardware
from cs336_systems.parallel_accounting import PHASES, FeedForward, Phase
from cs336_systems.parallel_memory import FP32_MASTER, XXL, Strategy, feed_forward_memory

HEADER = [
    "strategy", "compute-bound while", "up to devices", "split X × Y", "tokens per device there",
    "memory per device there (GB)", "compute per step (s)", "communication per step (s)",
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How far one strategy goes.

    Attributes:
        strategy: its name. condition: the inequality.
        most_devices: the largest number of devices that is compute-bound; 1 where no group of two is.
        split: (X, Y), the data and tensor sizes there.
        memory: bytes on one device there: fp32 weights, gradients, moments, and bf16 activations.
        compute, communication: seconds of forward and backward pass there.
    """

    strategy: str
    condition: str
    most_devices: int
    split: tuple[int, int]
    memory: float
    compute: float
    communication: float

    def row(self, tokens: float) -> list[object]:
        """The plan as a row under `HEADER`."""
        data, tensor = self.split
        per_device = tokens / self.most_devices
        return [
            self.strategy, self.condition, self.most_devices, f"{data} × {tensor}", round(per_device),
            f"{self.memory / 1e9:,.1f}", f"{self.compute:.4g}", f"{self.communication:.4g}",
        ]  # fmt: skip


def communication_time(
    layers: FeedForward, kind: str, data: float, tensor: float, bandwidth: float, phase: Phase
) -> float:
    """Seconds of communication in one pass, forward or backward; a group of one device sends nothing.

    Args:
        layers: the layers and the batch.
        kind: "dp" or "fsdp" along the data axis.
        data, tensor: X and Y.
        bandwidth: W.
        phase: which pass.
    """
    total = 0.0
    if data > 1:
        gradients = accounting.dp_bytes(layers, phase) / tensor
        total += gradients if kind == "dp" else accounting.fsdp_bytes(layers, phase, tensor)
    if tensor > 1:
        total += accounting.tp_bytes(layers, phase, data)
    return total / bandwidth


def largest_split(layers: FeedForward, machine: Hardware) -> tuple[int, int]:
    """The whole X and Y >= 2 of the most devices that FSDP + TP keeps compute-bound; (1, 1) if there is none.

    `mixed_time` <= `compute_time`, times X·Y, is F·X + B·Y <= (2/b) · B·F · W/C: each Y leaves a largest X.
    """
    budget = accounting.tp_most_devices(layers, machine.flops, machine.bandwidth)
    splits = [(math.floor(layers.tokens * (budget - y) / layers.d_ff), y) for y in range(2, math.floor(budget) + 1)]
    return max((split for split in splits if split[0] >= 1), key=math.prod, default=(1, 1))


def make_plans(layers: FeedForward, machine: Hardware) -> list[Plan]:
    """The reach of DP, FSDP, TP and FSDP + TP."""
    alpha = machine.intensity * layers.bytes_per_element / 2
    data = max(1, math.floor(accounting.dp_most_devices(layers, machine.flops, machine.bandwidth)))
    tensor = max(1, math.floor(accounting.tp_most_devices(layers, machine.flops, machine.bandwidth)))
    per_device = f"B/N ≥ C/W = {alpha:,.0f}"
    mixed = f"B/N ≥ 4·(C/W)²/F = {4 * alpha**2 / layers.d_ff:,.1f}"
    return [
        _plan(layers, machine, "DP", per_device, (data, 1), "dp"),
        _plan(layers, machine, "FSDP", per_device, (data, 1), "fsdp"),
        _plan(layers, machine, "TP", f"Y ≤ F·W/C = {layers.d_ff / alpha:,.1f}", (1, tensor), "tp"),
        _plan(layers, machine, "FSDP + TP", mixed, largest_split(layers, machine), "fsdp"),
    ]


def _plan(
    layers: FeedForward, machine: Hardware, name: str, condition: str, split: tuple[int, int], kind: Strategy
) -> Plan:
    data, tensor = split
    devices = data * tensor
    # Along the tensor axis a device holds 1/Y of the weights and of the hidden layer, along the data axis 1/X of the
    # tokens and, with FSDP, 1/X of the rest.
    share = FeedForward(layers.tokens / data, layers.d_model, layers.d_ff, layers.num_layers, layers.bytes_per_element)
    memory = feed_forward_memory(share, "tp", tensor, FP32_MASTER)
    state = (memory.total - memory.activations) / (data if kind == "fsdp" else 1)
    compute = sum(accounting.compute_time(layers, devices, machine.flops, phase) for phase in PHASES)
    communication = sum(communication_time(layers, kind, data, tensor, machine.bandwidth, phase) for phase in PHASES)
    return Plan(name, condition, devices, split, state + memory.activations, compute, communication)


def communication_share(layers: FeedForward, machine: Hardware, kind: str, data: float, tensor: float) -> float:
    """Communication over compute time, in the pass where it is larger; compute-bound is 1 or less."""
    return max(
        communication_time(layers, kind, data, tensor, machine.bandwidth, phase)
        / accounting.compute_time(layers, data * tensor, machine.flops, phase)
        for phase in PHASES
    )


def plot_plans(layers: FeedForward, machine: Hardware, most_devices: int) -> bytes:
    """`communication_share` of each strategy against the number of devices, as a PNG."""
    devices = np.logspace(1, np.log2(max(4, most_devices)), 200, base=2)

    def mixed(n: float) -> float:
        data = min(n, max(1.0, accounting.mixed_best_data(layers, n)))
        return min(communication_share(layers, machine, "fsdp", x, n / x) for x in (1.0, data, n))

    shares = {
        "DP, FSDP": lambda n: communication_share(layers, machine, "fsdp", n, 1),
        "TP": lambda n: communication_share(layers, machine, "tp", 1, n),
        "FSDP + TP, best split": mixed,
    }
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for (name, share), style in zip(shares.items(), ("-", "-", "--"), strict=True):
        axes.plot(devices, [share(n) for n in devices], style, label=name)
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.text(devices[0], 1.1, "communication-bound above", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.legend(frameon=False)
    tidy(axes, "devices", "communication / compute, the slower pass")
    return figure_png(figure)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="parallel_planner.py",
        description="How far data, fully sharded, tensor and mixed parallelism scale before communication limits them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--tokens", type=float, default=4e6, help="B, tokens in the whole batch")
    parser.add_argument("--d_model", type=int, default=XXL["d_model"], help="D, width of the residual stream")
    parser.add_argument("--d_ff", type=int, default=XXL["d_ff"], help="F, width of the feed-forward layer")
    parser.add_argument("--num_layers", type=int, default=XXL["num_layers"], help="L, blocks")
    parser.add_argument("--bytes_per_element", type=int, default=2, help="b, as sent: 2 for bf16, 4 for fp32")
    parser.add_argument(
        "--hardware", default="h100-nvlink", choices=list(PRESETS), help="where C, W and memory are from"
    )
    parser.add_argument("--flops", type=float, help="C, FLOP/s of one device, instead of the hardware's")
    parser.add_argument("--bandwidth", type=float, help="W, bytes/s one device receives, instead of the hardware's")
    parser.add_argument("--csv", type=Path, help="write the table here too, as CSV")
    parser.add_argument("--plot", type=Path, default=Path("parallel_plan.png"), help="where the plot goes")
    parser.add_argument("--smoke", action="store_true", help="accepted for uniformity: this takes a second anyway")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The program: print the table, write the plot."""
    given = build_parser().parse_args(argv)
    preset = hardware(given.hardware)
    machine = Hardware(
        preset.flops if given.flops is None else given.flops,
        preset.bandwidth if given.bandwidth is None else given.bandwidth,
        preset.memory,
        preset.source,
    )
    for name, value in (("flops", machine.flops), ("bandwidth", machine.bandwidth)):
        if not 0 < value < float("inf"):
            raise UsageError(f"{name} is {value}; allowed is any finite number above 0")
    layers = FeedForward(given.tokens, given.d_model, given.d_ff, given.num_layers, given.bytes_per_element)
    plans = make_plans(layers, machine)
    rows = [plan.row(layers.tokens) for plan in plans]
    print(
        f"B = {layers.tokens:,.0f} tokens, D = {layers.d_model:,}, F = {layers.d_ff:,}, L = {layers.num_layers}\n"
        f"C = {machine.flops:.4g} FLOP/s, W = {machine.bandwidth:.4g} B/s, C/W = {machine.intensity:,.0f} FLOPs/byte "
        f"({machine.source})\n"
    )
    print(tabulate(rows, HEADER, tablefmt="github", disable_numparse=True))
    short = [plan.strategy for plan in plans if plan.memory > machine.memory]
    if short:
        print(
            f"\nBeyond the {machine.memory / 1e9:,.0f} GB of a device there: {', '.join(short)} (use more devices than "
            "are compute-bound, activation checkpointing, or a smaller batch)."
        )
    if given.csv is not None:
        with atomic_write(given.csv, "w") as file:
            csv.writer(file).writerows([HEADER, *rows])
    with atomic_write(given.plot) as file:
        file.write(plot_plans(layers, machine, 4 * max(plan.most_devices for plan in plans)))
    print(f"\nplot: {given.plot}")
