"""Time the fused pieces against the plain ones of assignment 1 and against torch's, and measure their peak memory.

The pieces: the language-model head with its loss (forward and backward), a step of AdamW, and RMSNorm (forward and
backward). For the times, the sides of a piece live in one process and take turns; for the memory, each has a process of
its own, and what counts is the growth beyond its inputs. The results of all sides must agree, or nothing is reported.

    uv run python benchmarks/fused.py             (about 2 minutes on a CPU)
    uv run python benchmarks/fused.py --smoke     (small sizes)
"""

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from cs336_basics.command_line import UsageError, run_command
from cs336_basics.device import resolve_device
from cs336_basics.machine import processor_name
from cs336_basics.model.fused import fused_rms_norm
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.fused.adamw import FusedAdamW
from cs336_systems.fused.linear_cross_entropy import linear_cross_entropy
from cs336_systems.fused.rms_norm import rms_norm
from cs336_systems.profiling.memory import peak_growth
from cs336_systems.profiling.timing import time_calls
from cs336_systems.result_table import ResultTable

SIDES = ("fused", "plain", "torch")
"""Ours of this package, ours of assignment 1, PyTorch's."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}

SMOKE = {"tokens": 256, "d_model": 64, "vocab_size": 2000, "parameters": 200_000, "dtype": "float32"}
SMALL = {"tokens": 2048, "d_model": 512, "vocab_size": 10_000, "parameters": 20_000_000, "dtype": "float32"}
LARGE = {"tokens": 32_768, "d_model": 2048, "vocab_size": 50_304, "parameters": 10**9, "dtype": "bfloat16"}
"""Sizes for a look, for a CPU, and for everything else."""

Step = Callable[[], list[Tensor]]
"""Does a piece's work once, and returns tensors by which the sides can be compared."""


def random(*shape: int, device: torch.device, seed: int) -> Tensor:
    """The same normal numbers for all sides, in float32."""
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def head_and_loss(side: str, arguments: argparse.Namespace, device: torch.device) -> Step:
    """Loss, and gradients of hidden states and weight; under autocast for bfloat16."""
    hidden = random(arguments.tokens, arguments.d_model, device=device, seed=0).requires_grad_()
    weight = (random(arguments.vocab_size, arguments.d_model, device=device, seed=1) / 30).requires_grad_()
    targets = torch.arange(arguments.tokens, device=device) * 7919 % arguments.vocab_size

    def autocast() -> AbstractContextManager:
        return torch.autocast(device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16")

    def step() -> list[Tensor]:
        hidden.grad = weight.grad = None
        with autocast():
            if side == "fused":
                loss = linear_cross_entropy(hidden, weight, targets)
            else:
                # No name holds the logits, so that they can be freed as soon as the loss no longer needs them.
                loss = (cross_entropy if side == "plain" else functional.cross_entropy)(hidden @ weight.T, targets)
        loss.backward()
        return [loss.detach(), hidden.grad, weight.grad]

    return step


def optimizer(side: str, arguments: argparse.Namespace, device: torch.device) -> Step:
    """A step on matrices and vectors like a Transformer's, with fixed gradients, in float32."""
    matrices = max(1, arguments.parameters // (4 * arguments.d_model**2))
    shapes = [(4 * arguments.d_model, arguments.d_model)] * matrices + [(arguments.d_model,)] * matrices
    parameters = [torch.nn.Parameter(random(*shape, device=device, seed=0)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = random(*parameter.shape, device=device, seed=1)
    classes = {"fused": FusedAdamW, "plain": AdamW, "torch": torch.optim.AdamW}
    stepper = classes[side](parameters, lr=1e-3, weight_decay=0.1)
    stepper.step()  # makes the moments

    def step() -> list[Tensor]:
        stepper.step()
        return [parameters[0].detach(), parameters[-1].detach()]

    return step


def norm(side: str, arguments: argparse.Namespace, device: torch.device) -> Step:
    """The norm, and the gradients of its input and its gain."""
    x = random(arguments.tokens, arguments.d_model, device=device, seed=0).to(DTYPES[arguments.dtype]).requires_grad_()
    gain = random(arguments.d_model, device=device, seed=1).to(x.dtype).requires_grad_()
    grad = random(arguments.tokens, arguments.d_model, device=device, seed=2).to(x.dtype)
    functions = {
        "fused": lambda: rms_norm(x, gain, 1e-5),
        "plain": lambda: fused_rms_norm(x, gain, 1e-5),
        "torch": lambda: functional.rms_norm(x, (arguments.d_model,), gain, 1e-5),
    }

    def step() -> list[Tensor]:
        y = functions[side]()
        return [y.detach(), *torch.autograd.grad(y, (x, gain), grad)]

    return step


PIECES = {"head + loss": head_and_loss, "AdamW step": optimizer, "RMSNorm": norm}


def check_agreement(piece: str, steps: dict[str, Step], tolerance: float) -> None:
    """Run every side once, and refuse to go on when they differ.

    Raises:
        UsageError: naming the piece and the side.
    """
    expected = [x.float().clone() for x in steps["torch"]()]
    for side in SIDES[:-1]:
        for actual, right in zip(steps[side](), expected, strict=True):
            worst = ((actual.float() - right).abs().max() / right.abs().max()).item()
            if not worst <= tolerance:
                raise UsageError(f"{piece}: {side} differs from torch by {worst:.1e}; allowed is {tolerance:.0e}")


def median_seconds(piece: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Seconds of a step of each side, which take turns."""
    steps = {side: PIECES[piece](side, arguments, device) for side in SIDES}
    check_agreement(piece, steps, TOLERANCES[arguments.dtype])
    turns: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side, step in steps.items():
            turns[side].append(time_calls(step, device, warmup=1, repeats=20, max_seconds=0.5).median)
    return {side: statistics.median(seconds) for side, seconds in turns.items()}


def peak_of(piece: str, side: str, arguments: argparse.Namespace) -> int | None:
    """Bytes that a step takes beyond its inputs; None where that cannot be seen."""
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    # What a first step loads and starts, it does with a small one.
    PIECES[piece](side, argparse.Namespace(**vars(arguments) | SMOKE), device)()
    step = PIECES[piece](side, arguments, device)
    if device.type == "cuda":
        step()  # tunes kernels to the size
    return peak_growth(step, device)


def in_fresh_processes(piece: str, arguments: argparse.Namespace) -> dict[str, int | None]:
    """`peak_of` each side, in a process that has done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module.__module__ for module in (linear_cross_entropy, FusedAdamW, rms_norm)])
    peaks = {}
    for side in SIDES:
        with ProcessPoolExecutor(1, context) as executor:
            peaks[side] = executor.submit(peak_of, piece, side, arguments).result()
    return peaks


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tokens", type=int, help="rows of the loss and the norm (default: 2048 on a CPU, 32768 elsewhere)")
    add("--d_model", type=int, help="width (default: 512 on a CPU, 2048 elsewhere)")
    add("--vocab_size", type=int, help="of the head (default: 10000 on a CPU, 50304 elsewhere)")
    add("--parameters", type=int, help="of the optimizer (default: 20 million on a CPU, 1 billion elsewhere)")
    add("--dtype", choices=list(DTYPES), help="of loss and norm (default: float32 on a CPU, bfloat16 elsewhere)")
    add("--rounds", type=int, default=3, help="turns of each side (default: %(default)s)")
    add("--threads", type=int, default=1, help="of a CPU (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/fused"), help="folder of the table (default: %(default)s)")
    add("--smoke", action="store_true", help="small sizes, one turn")
    arguments = parser.parse_args(argv)
    device = resolve_device(arguments.device)
    defaults = SMOKE if arguments.smoke else SMALL if device.type == "cpu" else LARGE
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.smoke:
        arguments.rounds = 1
    for name in ("tokens", "d_model", "vocab_size", "parameters", "rounds", "threads"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"{name} is {getattr(arguments, name)}; allowed is any whole number above 0")
    torch.set_num_threads(arguments.threads)

    threads = f", {arguments.threads} threads" if device.type == "cpu" else ""
    print(
        f"{processor_name(device)}{threads}; torch {version('torch')}; {arguments.tokens:,} tokens, d_model "
        f"{arguments.d_model}, vocabulary {arguments.vocab_size:,}, {arguments.dtype}; AdamW on "
        f"{arguments.parameters:,} float32 parameters; medians of {arguments.rounds} turns\n"
    )
    header = ["piece", "side", "ms", "fused / this", "peak beyond inputs, MB", "fused / this, memory"]
    table = ResultTable(header)
    for piece in tqdm(PIECES, unit="piece", dynamic_ncols=True):
        peaks = in_fresh_processes(piece, arguments)
        seconds = median_seconds(piece, arguments, device)
        for side in SIDES:
            peak, ours = peaks[side], peaks["fused"]
            share = ours / peak if side != "fused" and peak and ours is not None else None
            ratio = None if side == "fused" else seconds["fused"] / seconds[side]
            table.rows.append([piece, side, seconds[side] * 1e3, ratio, None if peak is None else peak / 1e6, share])
        table.write(arguments.out, "fused")
    print(f"{table.markdown()}\n\ntable (.md, .tex, .csv): {arguments.out}")


if __name__ == "__main__":
    run_command(main)
