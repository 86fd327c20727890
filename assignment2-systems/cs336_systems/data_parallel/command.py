"""The command that compares the ways of data parallelism: a step's time, and how much of it waits for communication."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from cs336_basics.command_line import UsageError
from cs336_basics.machine import machine_description
from cs336_basics.model import BasicsTransformerLM, TransformerConfig
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.data_parallel import BucketedDDP, FlatDDP, NaiveDDP, OverlappedDDP
from cs336_systems.data_parallel.base import DataParallel
from cs336_systems.fsdp import FSDP
from cs336_systems.model_sizes import SIZES, model_size
from cs336_systems.process_group import rank_device, run_in_processes
from cs336_systems.result_table import ResultTable

Steps = list[tuple[float, float]]
"""For each step: its seconds, and those of them that waited for communication after the backward pass."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="data_parallel.py",
        description="Train a model with each way of data parallelism, and with FSDP, in processes on this machine. "
        "The table shows the time of a step and the part of it that waits for communication after the backward pass.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--size", default="mini", choices=list(SIZES), help="model size")
    add("--processes", type=int, default=2, help="ranks, each with the whole model (with FSDP a part of it)")
    add("--batch_size", type=int, default=4, help="sequences per step and rank")
    add("--context_len", type=int, default=128, help="tokens per sequence")
    add(
        "--bucket_size_mb", type=float, nargs="+", default=[1.0, 10.0, 100.0], help="bucket sizes to try, in 10^6 bytes"
    )
    add("--warmup", type=int, default=2, help="steps of each way before timing")
    add("--steps", type=int, default=10, help="timed steps of each way; the median counts")
    add("--device", default="cpu", choices=["cpu", "cuda"], help="cpu (gloo) or cuda (NCCL, one GPU per rank)")
    add("--out_dir", type=Path, default=None, help="also write the table there, as Markdown, LaTeX and CSV")
    add("--smoke", action="store_true", help="a small run: the tiny size, 3 steps, one bucket size")
    return parser


def ways(bucket_sizes: Sequence[float]) -> dict[str, Callable[[nn.Module], DataParallel]]:
    """The wrappers to compare, by name."""
    buckets = {f"buckets of {size:g} MB": lambda model, size=size: BucketedDDP(model, size) for size in bucket_sizes}
    return {"naive": NaiveDDP, "flat": FlatDDP, "overlapped": OverlappedDDP, **buckets, "FSDP": FSDP}


def time_steps(name: str, config: TransformerConfig, arguments: argparse.Namespace, device: torch.device) -> Steps:
    """Run in each rank: train a model in one way."""
    torch.manual_seed(0)
    model = ways(arguments.bucket_size_mb)[name](BasicsTransformerLM.from_config(config, device=device))
    optimizer = AdamW(model.parameters())
    generator = torch.Generator().manual_seed(dist.get_rank())
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    steps = []
    for _ in range(arguments.warmup + arguments.steps):
        shape = (arguments.batch_size, arguments.context_len + 1)
        tokens = torch.randint(config.vocab_size, shape, generator=generator).to(device)
        dist.barrier()
        synchronize()
        start = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
        synchronize()
        after_backward = time.perf_counter()
        model.finish_gradient_synchronization()
        synchronize()
        waited = time.perf_counter() - after_backward
        optimizer.step()
        synchronize()
        steps.append((time.perf_counter() - start, waited))
    return steps[arguments.warmup :]


def _time_all(config: TransformerConfig, arguments: argparse.Namespace) -> dict[str, Steps]:
    names = tqdm(ways(arguments.bucket_size_mb), disable=dist.get_rank() != 0)
    device = rank_device(torch.device(arguments.device))
    return {name: time_steps(name, config, arguments, device) for name in names}


def main(argv: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UsageError: a number is out of range, or there are too few GPUs.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.smoke:
        arguments.size, arguments.context_len, arguments.steps, arguments.warmup = "tiny", 32, 3, 1
        arguments.bucket_size_mb = arguments.bucket_size_mb[:1]
    for name in ("processes", "batch_size", "context_len", "steps"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name} is {getattr(arguments, name)}; allowed is any whole number of at least 1")
    if arguments.warmup < 0:
        raise UsageError(f"--warmup is {arguments.warmup}; allowed is any whole number of at least 0")
    if not min(arguments.bucket_size_mb) > 0:
        raise UsageError(f"--bucket_size_mb has {min(arguments.bucket_size_mb)}; allowed is any number above 0")
    config = model_size(arguments.size, arguments.context_len)
    ranks = run_in_processes(_time_all, arguments.processes, config, arguments, device=arguments.device)

    table = ResultTable(["", "step, ms", "waiting for communication, ms", "share of the step, %"])
    for name in ways(arguments.bucket_size_mb):
        steps = [step for rank in ranks for step in rank[name]]
        total, waited = (1000 * statistics.median(values) for values in zip(*steps, strict=True))
        table.rows.append([name, total, waited, 100 * waited / total])
    machine = ", ".join(f"{name}: {value}" for name, value in machine_description().items())
    print(f"{machine}\n{arguments.size}, {arguments.processes} processes, {arguments.batch_size} x "
          f"{arguments.context_len} tokens each, medians of {arguments.steps} steps\n\n{table.markdown()}")  # fmt: skip
    if arguments.out_dir is not None:
        for path in table.write(arguments.out_dir, "data_parallel"):
            print(f"wrote {path}")
