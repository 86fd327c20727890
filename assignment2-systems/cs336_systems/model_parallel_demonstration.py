"""A demonstration of model parallelism: a few steps on a mesh of local processes, beside the same in one process."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.model import BasicsTransformerLM, TransformerConfig
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_basics.trainer.gradient_clipping import clip_gradient
from cs336_systems.mesh import AXES, Mesh, check_mesh
from cs336_systems.model_parallel import ModelParallel
from cs336_systems.pipeline_parallel.schedules import SCHEDULES, bubble_fraction, chart, most_in_flight
from cs336_systems.pipeline_parallel.stages import split_layers
from cs336_systems.process_group import check_local_processes, run_in_processes
from cs336_systems.result_table import ResultTable
from cs336_systems.tensor_parallel.model import check_divisible

MAX_NORM = 1.0
SMOKE = {"steps": 3, "d_model": 64, "vocab_size": 500, "context_len": 32}


@dataclass(frozen=True)
class RankResult:
    """What one rank reports.

    Attributes:
        losses: of the steps, in nats per token.
        num_parameters: that this rank holds.
        step_seconds: the median time of a step.
    """

    losses: list[float]
    num_parameters: int
    step_seconds: float


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="model_parallel.py",
        description="Train a small model for a few steps on a grid of local processes (gloo on the CPU; NCCL with one "
        "GPU per process), and beside it in a single process from the same weights on the same tokens. Prints both "
        "loss curves, what each rank holds, and the pipeline's schedule.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=int, default=1, help="copies of the model, which share the batch")
    parser.add_argument("--pipeline", type=int, default=2, help="stages, which share the layers")
    parser.add_argument("--tensor", type=int, default=2, help="ranks that share the inside of each layer")
    parser.add_argument("--schedule", default="1f1b", choices=list(SCHEDULES), help="order of the pipeline's passes")
    parser.add_argument("--microbatches", type=int, default=4, help="parts of a batch in the pipeline")
    parser.add_argument("--sequence_parallel", action="store_true", help="tensor ranks share the tokens around norms")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--batch_size", type=int, default=8, help="sequences per step, of all copies together")
    parser.add_argument("--context_len", type=int, default=64, help="tokens per sequence")
    parser.add_argument("--vocab_size", type=int, default=2000, help="token ids")
    parser.add_argument("--d_model", type=int, default=128, help="width of the model")
    parser.add_argument("--num_layers", type=int, default=4, help="Transformer blocks")
    parser.add_argument("--num_heads", type=int, default=4, help="attention heads per block")
    parser.add_argument("--lr", type=float, default=1e-3, help="AdamW's learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the tokens")
    parser.add_argument("--device", default="auto", help="auto, cuda (one GPU per process) or cpu")
    parser.add_argument("--smoke", action="store_true", help="3 steps of a model of width 64")
    return parser


def _batch(
    given: argparse.Namespace, device: torch.device
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """One batch of random tokens. Every step trains on it, so the loss falls as the model learns it by heart."""
    generator = torch.Generator().manual_seed(given.seed)
    tokens = torch.randint(given.vocab_size, (given.batch_size, given.context_len + 1), generator=generator)
    return tokens[:, :-1].to(device), tokens[:, 1:].to(device)


def _model(given: argparse.Namespace, device: torch.device) -> BasicsTransformerLM:
    torch.manual_seed(given.seed)
    return BasicsTransformerLM.from_config(_config(given)).to(device)


def _config(given: argparse.Namespace) -> TransformerConfig:
    return TransformerConfig(
        given.vocab_size, given.context_len, given.d_model, given.num_layers, given.num_heads
    )  # fmt: skip


def train_on_mesh(given: argparse.Namespace, device: torch.device) -> RankResult:
    """Take all steps as one rank of the mesh."""
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    mesh = Mesh(given.data, given.pipeline, given.tensor)
    parallel = ModelParallel(
        _model(given, device),
        mesh,
        schedule=given.schedule,
        num_microbatches=given.microbatches if given.pipeline > 1 else 1,
        sequence_parallel=given.sequence_parallel,
    )
    optimizer = AdamW(parallel.module.parameters(), lr=given.lr)
    inputs, targets = _batch(given, device)
    losses, seconds = [], []
    is_quiet = torch.distributed.get_rank() != 0
    for _ in tqdm(range(given.steps), desc="on the mesh", unit="step", disable=is_quiet):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss = parallel.backward(inputs, targets)
        parallel.clip_gradient(MAX_NORM)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
    held = sum(parameter.numel() for parameter in parallel.module.parameters())
    return RankResult(losses, held, median(seconds))


def train_alone(given: argparse.Namespace, device: torch.device) -> RankResult:
    """Take the same steps in a single process."""
    model = _model(given, device)
    optimizer = AdamW(model.parameters(), lr=given.lr)
    inputs, targets = _batch(given, device)
    losses, seconds = [], []
    for _ in tqdm(range(given.steps), desc="in one process", unit="step"):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        clip_gradient(model.parameters(), MAX_NORM)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
    return RankResult(losses, sum(parameter.numel() for parameter in model.parameters()), median(seconds))


def check(given: argparse.Namespace) -> None:
    """Refuse what the ranks would refuse, before they are started.

    Raises:
        UsageError: a number is out of range, or the mesh does not divide the model or the batch.
    """
    for name in ("steps", "batch_size", "microbatches"):
        if getattr(given, name) < 1:
            raise UsageError(f"{name} is {getattr(given, name)}; allowed is any whole number of at least 1")
    sizes = {axis: getattr(given, axis) for axis in AXES}
    check_mesh(sizes, given.data * given.pipeline * given.tensor)
    config = _config(given)
    check_divisible(config, given.tensor)
    split_layers(config, given.pipeline)
    parts = given.data * (given.microbatches if given.pipeline > 1 else 1)
    if given.batch_size % parts:
        raise UsageError(
            f"batch_size {given.batch_size} is not a multiple of {parts}, the number of data-parallel copies times "
            "microbatches"
        )
    if given.sequence_parallel and given.context_len % given.tensor:
        raise UsageError(f"context_len {given.context_len} is not a multiple of the {given.tensor} tensor ranks")


def report(given: argparse.Namespace, alone: RankResult, ranks: Sequence[RankResult]) -> str:
    """Both loss curves, what each rank holds, and the schedule."""
    losses = ResultTable(["step", "one process", "on the mesh", "difference"])
    for step, (expected, found) in enumerate(zip(alone.losses, ranks[0].losses, strict=True), start=1):
        losses.rows.append([step, f"{expected:.6f}", f"{found:.6f}", f"{found - expected:+.1e}"])
    held = ResultTable(["rank", "data", "pipeline", "tensor", "blocks", "parameters", "MB", "share"])
    stages = split_layers(_config(given), given.pipeline)
    for rank, result in enumerate(ranks):
        copy, rest = divmod(rank, given.pipeline * given.tensor)
        stage, shard = divmod(rest, given.tensor)
        blocks = ", ".join(map(str, stages[stage])) or "none"
        share = f"{result.num_parameters / alone.num_parameters:.1%}"
        megabytes = f"{4 * result.num_parameters / 1e6:.2f}"
        held.rows.append([rank, copy, stage, shard, blocks, result.num_parameters, megabytes, share])
    paragraphs = [
        f"Loss, in nats per token, of one process and of a mesh of data {given.data} x pipeline {given.pipeline} x "
        f"tensor {given.tensor} processes:",
        losses.markdown(),
        f"Parameters (4 bytes each) that each rank holds, of {alone.num_parameters:,}:",
        held.markdown(),
    ]
    if given.pipeline > 1:
        schedule = SCHEDULES[given.schedule]
        kept = [most_in_flight(schedule(s, given.pipeline, given.microbatches)) for s in range(given.pipeline)]
        paragraphs += [
            f"Schedule {given.schedule}, {given.microbatches} microbatches; each stage idles "
            f"{bubble_fraction(given.pipeline, given.microbatches):.1%} of a step if all cost the same, and keeps the "
            f"activations of at most {', '.join(map(str, kept))} microbatches:",
            chart(schedule, given.pipeline, given.microbatches),
        ]
    paragraphs.append(
        f"A step took {1e3 * alone.step_seconds:.1f} ms in one process and {1e3 * ranks[0].step_seconds:.1f} ms on the "
        "mesh; processes that share a few cores gain no time."
    )
    return "\n\n".join(paragraphs)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    given = build_parser().parse_args(argv)
    if given.smoke:
        vars(given).update(SMOKE)
    check(given)
    world_size = given.data * given.pipeline * given.tensor
    device = resolve_device(given.device)
    if given.device == "auto" and (device.type == "mps" or world_size > torch.cuda.device_count()):
        device = torch.device("cpu")
    check_local_processes(world_size, device)
    alone = train_alone(given, device)
    ranks = run_in_processes(train_on_mesh, world_size, given, device, device=device)
    print(report(given, alone, ranks))
