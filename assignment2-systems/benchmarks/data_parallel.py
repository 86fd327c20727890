"""Time our data-parallel and FSDP steps against PyTorch's, in processes on this machine that talk over gloo.

Ours: BucketedDDP, OverlappedDDP and FSDP. Theirs: torch.nn.parallel.DistributedDataParallel and
torch.distributed.fsdp.fully_shard (each block, then the whole). Same model, same batches, same optimizer. For the
times, all sides live in the same processes and take turns step by step, so that whatever else the machine does meets
all alike. For the memory, each side has processes of its own. The losses of all must agree, or nothing is reported.

    uv run python benchmarks/data_parallel.py             (about 4 minutes on a quiet machine)
    uv run python benchmarks/data_parallel.py --smoke     (a small model, less than a minute)
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from cs336_basics.command_line import UsageError, run_command
from cs336_basics.machine import machine_description
from cs336_basics.model import TransformerConfig, transformer_lm
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.data_parallel import BucketedDDP, OverlappedDDP
from cs336_systems.fsdp import FSDP
from cs336_systems.process_group import check_local_processes, run_in_processes
from cs336_systems.profiling.memory import current_bytes, peak_growth
from cs336_systems.result_table import ResultTable

SMOKE = {"context_length": 32, "vocab_size": 500, "d_model": 64, "num_heads": 4, "steps": 3, "warmup": 1}


def torch_fsdp(model: nn.Module) -> nn.Module:
    """Each block and then the whole through PyTorch's FSDP."""
    from torch.distributed.fsdp import fully_shard

    for layer in model.layers:
        fully_shard(layer)
    return fully_shard(model)


SIDES = {
    "torch DDP": torch.nn.parallel.DistributedDataParallel,
    "BucketedDDP": lambda model: BucketedDDP(model, bucket_size_mb=25),
    "OverlappedDDP": OverlappedDDP,
    "torch fully_shard": torch_fsdp,
    "FSDP": FSDP,
}
PEERS = {"BucketedDDP": "torch DDP", "OverlappedDDP": "torch DDP", "FSDP": "torch fully_shard"}


class Side:
    """A model in its wrapper, with its optimizer and its batches."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        model = transformer_lm(
            arguments.vocab_size, arguments.context_length, arguments.d_model, arguments.num_layers, arguments.num_heads
        )
        self.model = SIDES[name](model)
        self.is_ours = name in PEERS
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.shape = (arguments.batch_size, arguments.context_length + 1)
        self.vocab_size = arguments.vocab_size
        self.generator = torch.Generator().manual_seed(dist.get_rank())
        self.losses: list[float] = []

    def step(self) -> float:
        """Seconds of one training step."""
        tokens = torch.randint(self.vocab_size, self.shape, generator=self.generator)
        dist.barrier()
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(tokens[:, :-1]), tokens[:, 1:])
        loss.backward()
        if self.is_ours:
            self.model.finish_gradient_synchronization()
        self.optimizer.step()
        self.losses.append(loss.item())
        return time.perf_counter() - start


def measure_times(arguments: argparse.Namespace) -> tuple[dict, dict]:
    """One rank's seconds and losses of each side's steps."""
    sides = {name: Side(name, arguments) for name in SIDES}
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    rounds = range(arguments.warmup + arguments.steps)
    for _ in tqdm(rounds, desc="rounds", disable=dist.get_rank() != 0):
        for name, side in sides.items():
            seconds[name].append(side.step())
    return seconds, {name: side.losses for name, side in sides.items()}


def measure_memory(name: str, arguments: argparse.Namespace) -> int | None:
    """Bytes: the most that one rank's third step has in use, beyond what Python and its libraries take.

    None where that cannot be seen; only Linux shows it.
    """
    device = torch.device("cpu")
    before = current_bytes(device)
    side = Side(name, arguments)
    side.step()
    side.step()
    kept = current_bytes(device) - before
    growth = peak_growth(side.step, device)
    return None if growth is None else kept + growth


def check_losses(losses: dict[str, list[float]]) -> float:
    """The largest relative difference between the losses of the sides.

    Raises:
        UsageError: it is above 1e-4, so they did not compute the same.
    """
    reference, *others = losses.values()
    worst = max(abs(a - b) / b for other in others for a, b in zip(other, reference, strict=True))
    if worst > 1e-4:
        raise UsageError(f"the losses differ by {worst:.1e} of their value; allowed is 1e-4")
    return worst


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        UsageError: a number is out of range.
    """
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=2, help="sequences per step and process")
    parser.add_argument("--context_length", type=int, default=128, help="tokens per sequence")
    parser.add_argument("--vocab_size", type=int, default=10_000, help="size of the vocabulary")
    parser.add_argument("--d_model", type=int, default=768, help="width of the model")
    parser.add_argument("--num_layers", type=int, default=2, help="Transformer blocks")
    parser.add_argument("--num_heads", type=int, default=12, help="attention heads")
    parser.add_argument("--steps", type=int, default=15, help="timed steps of each side")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them that are not timed")
    parser.add_argument("--world_size", type=int, default=2, help="processes")
    parser.add_argument("--smoke", action="store_true", help="a small model and three steps")
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        vars(arguments).update(SMOKE)
    for name in ("batch_size", "steps"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"{name} is {getattr(arguments, name)}; allowed is any whole number of at least 1")
    if arguments.warmup < 0:
        raise UsageError(f"warmup is {arguments.warmup}; allowed is any whole number of at least 0")
    check_local_processes(arguments.world_size, torch.device("cpu"))
    # The other numbers are the model's shape, which checks itself.
    TransformerConfig(
        arguments.vocab_size, arguments.context_length, arguments.d_model, arguments.num_layers, arguments.num_heads
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    ranks = run_in_processes(measure_times, arguments.world_size, arguments)
    worst = max(check_losses(losses) for _, losses in ranks)
    # A step is over when the slowest rank is.
    seconds = {
        name: [max(times) for times in zip(*(of_rank[name] for of_rank, _ in ranks), strict=True)][arguments.warmup :]
        for name in SIDES
    }
    # With this, glibc takes every large block from the system and gives it back when it is freed.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    peak = {}
    for name in tqdm(SIDES, desc="memory"):
        of_ranks = run_in_processes(measure_memory, arguments.world_size, name, arguments, start_method="spawn")
        peak[name] = None if None in of_ranks else max(of_ranks) / 1e6

    print(", ".join(f"{name} {value}" for name, value in machine_description().items()))
    print(
        f"{arguments.world_size} processes with one thread each, gloo; batch {arguments.batch_size} x "
        f"{arguments.context_length} tokens each, d_model {arguments.d_model}, {arguments.num_layers} layers; medians "
        f"of {arguments.steps} steps in turns. Losses agree to {worst:.0e}.\n"
    )
    table = ResultTable(["", "seconds per step", "memory per process, MB", "time / peer's", "memory / peer's"])
    for name, times in seconds.items():
        ratios = [None, None]
        if name in PEERS:
            # Each step is compared with the peer's step of the same round.
            pairs = zip(times, seconds[PEERS[name]], strict=True)
            share = None if peak[name] is None else peak[name] / peak[PEERS[name]]
            ratios = [statistics.median(own / other for own, other in pairs), share]
        table.rows.append([name, statistics.median(times), peak[name], *ratios])
    print(table.markdown())


if __name__ == "__main__":
    run_command(main)
