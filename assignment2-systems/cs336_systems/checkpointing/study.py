"""The command that finds the block size with the least peak memory, by measuring them all."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.curves import figure_png, tidy
from cs336_basics.device import resolve_device
from cs336_basics.machine import processor_name
from cs336_systems.attention_choice import ATTENTION_NAMES
from cs336_systems.checkpointing.blockwise import BlockSizes, bisection, check_block_sizes, checkpoint_layers
from cs336_systems.checkpointing.saved_tensors import count_saved_tensors
from cs336_systems.checkpointing.theory import ActivationBytes
from cs336_systems.model_sizes import SIZES, VOCAB_SIZE, model_size
from cs336_systems.out_of_memory import is_out_of_memory
from cs336_systems.profiling.timing import Timing
from cs336_systems.profiling.workload import Case, Workload
from cs336_systems.result_log import ResultLog
from cs336_systems.result_table import ResultTable

OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Measurement:
    """One choice of blocks. Without `seconds` it ran out of memory.

    Attributes:
        block_sizes: what was checkpointed together.
        peak_saved: the most bytes saved for the backward pass at once.
        seconds: median of a forward and a backward pass.
        peak_allocated: on CUDA, the allocator's peak in bytes, parameters and gradients included.
    """

    block_sizes: BlockSizes
    peak_saved: int | None = None
    seconds: float | None = None
    peak_allocated: int | None = None

    @property
    def name(self) -> str:
        """As the table shows it."""
        return " > ".join(map(str, self.block_sizes)) or "none"


def activation_bytes(workload: Workload) -> ActivationBytes:
    """Count what the workload's model keeps without checkpointing."""
    checkpoint_layers(workload.model, ())
    with count_saved_tensors(workload.model) as saved:
        loss = workload.loss()
        in_layers = sum(count for name, count in saved.by_module.items() if name.startswith("layers."))
        before = saved.by_module.get("token_embeddings", 0)
        after = saved.num_bytes - in_layers - before
    del loss
    embedded = workload.model.token_embeddings(workload.inputs)
    num_layers = len(workload.model.layers)
    return ActivationBytes(num_layers, in_layers // num_layers, embedded.nbytes, before, after)


def measure_blocks(workload: Workload, block_sizes: BlockSizes, warmup: int, steps: int) -> Measurement:
    """Measure memory and time of a forward and a backward pass with checkpointing in blocks."""
    checkpoint_layers(workload.model, block_sizes, keep_random_state=False)
    on_cuda = workload.device.type == "cuda"
    try:
        with count_saved_tensors(workload.model) as saved:
            workload.run()
        for _ in range(warmup):
            workload.run()
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(workload.device)
        times = Timing(tuple(sum(workload.run().values()) for _ in range(steps)))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Measurement(block_sizes)
    allocated = torch.cuda.max_memory_allocated(workload.device) if on_cuda else None
    return Measurement(block_sizes, saved.peak_bytes, times.median, allocated)


def result_table(measurements: Sequence[Measurement], theory: ActivationBytes) -> ResultTable:
    """Peak memory measured and predicted in MB (10^6 bytes), and time, also relative to that without checkpointing."""
    without = next((m.seconds for m in measurements if not m.block_sizes), None)
    table = ResultTable(
        ["layers per block", "peak saved, MB", "predicted, MB", "allocator's peak, MB", "seconds", "time ratio"]
    )
    for m in measurements:
        predicted = theory.peak(m.block_sizes) / 1e6
        if m.seconds is None:
            table.rows.append([m.name, OUT_OF_MEMORY, predicted, None, None, None])
            continue
        allocated = None if m.peak_allocated is None else m.peak_allocated / 1e6
        ratio = None if without is None else m.seconds / without
        table.rows.append([m.name, m.peak_saved / 1e6, predicted, allocated, m.seconds, ratio])
    return table


def least_memory(measurements: Sequence[Measurement]) -> Measurement | None:
    """The single block size with the least peak of saved memory, of equals the fastest; None if there is none."""
    finished = [m for m in measurements if len(m.block_sizes) == 1 and m.seconds is not None]
    return min(finished, key=lambda m: (m.peak_saved, m.seconds), default=None)


def plot(measurements: Sequence[Measurement], theory: ActivationBytes) -> bytes:
    """Peak memory and time against the block size, as a PNG; dashed lines are without checkpointing."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    memory, time = figure.subplots(1, 2)
    blocks = sorted((m for m in measurements if len(m.block_sizes) == 1 and m.seconds), key=lambda m: m.block_sizes)
    sizes = [m.block_sizes[0] for m in blocks]
    every = range(1, theory.num_layers + 1)
    memory.plot(every, [theory.peak((size,)) / 1e6 for size in every], color="#9aa9bd", label="predicted")
    memory.plot(sizes, [m.peak_saved / 1e6 for m in blocks], "o", color="#8c1515", label="measured")
    time.plot(sizes, [m.seconds for m in blocks], marker="o", color="#2f6db3")
    for m in measurements:
        if not m.block_sizes and m.seconds is not None:
            memory.axhline(m.peak_saved / 1e6, linestyle="--", color="#8c1515", label="without checkpointing")
            time.axhline(m.seconds, linestyle="--", color="#2f6db3")
    memory.legend(frameon=False)
    memory.set_ylim(bottom=0)
    time.set_ylim(bottom=0)
    tidy(memory, "layers per block", "peak saved for the backward pass, MB")
    tidy(time, "layers per block", "forward + backward, seconds")
    return figure_png(figure)


def parse_blocks(text: str) -> BlockSizes:
    """ "4" -> (4,), "8,2" -> (8, 2), "none" -> ()."""
    if text == "none":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"block size {text!r} is unknown; allowed are none, numbers as 4, and nested ones as 8,2"
        ) from None


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="gradient_checkpointing.py",
        description="Measure peak memory and time of a model's forward and backward pass for each number of layers "
        "that are checkpointed together, and find the one that needs the least memory.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--size", choices=list(SIZES), default="small", help="the model")
    add("--num_layers", type=int, default=None, help="instead of the named size's; none: keep it")
    add("--vocab_size", type=int, default=VOCAB_SIZE, help="number of token ids")
    add("--context_len", type=int, default=128, help="tokens per sequence")
    add("--batch_size", type=int, default=1, help="sequences per batch")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16: autocast")
    add("--attention", choices=ATTENTION_NAMES, default="plain", help="the attention function")
    add(
        "--blocks",
        nargs="+",
        default=None,
        metavar="K",
        help="layers per block: none, 4, or nested as 8,2; not given: none, every single number, two levels, bisection",
    )
    add("--warmup", type=int, default=1, help="runs before those that count")
    add("--steps", type=int, default=3, help="runs that count")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--seed", type=int, default=0, help="of the weights and the batch")
    add("--out", type=Path, default=Path("runs/gradient_checkpointing"), help="folder of the tables and the plot")
    add("--resume", action="store_true", help="go on with an interrupted run: keep the results in the folder")
    add("--smoke", action="store_true", help="a tiny model of 9 layers: seconds")
    return parser


def _case(arguments: argparse.Namespace) -> Case:
    for name, least in (("batch_size", 1), ("warmup", 0), ("steps", 1)):
        if getattr(arguments, name) < least:
            value = getattr(arguments, name)
            raise UsageError(f"{name} is {value}; allowed is any whole number of at least {least}")
    config = model_size(
        arguments.size, arguments.context_len, vocab_size=arguments.vocab_size, num_layers=arguments.num_layers
    )
    return Case(arguments.size, config, arguments.batch_size, "forward_backward", arguments.dtype, arguments.attention)


def main(argv: Sequence[str] | None = None) -> None:
    """The command: measure every choice of blocks, write table and plot, and name the best."""
    arguments = build_parser().parse_args(argv)
    if arguments.smoke:
        arguments.size, arguments.num_layers, arguments.vocab_size, arguments.context_len = "tiny", 9, 128, 64
    case, device = _case(arguments), resolve_device(arguments.device)
    num_layers = case.config.num_layers
    choices = None
    if arguments.blocks is not None:
        choices = [parse_blocks(text) for text in arguments.blocks]
        for block_sizes in choices:
            check_block_sizes(block_sizes, num_layers)
    log = ResultLog(arguments.out / "results.jsonl", arguments.resume)
    workload = Workload(case, device, arguments.seed)
    theory = activation_bytes(workload)
    if choices is None:
        nested = [theory.best_two_levels(), bisection(num_layers)]
        singles = [(size,) for size in range(1, num_layers + 1)]
        choices = list(dict.fromkeys([(), *singles, *(sizes for sizes in nested if sizes and len(sizes) > 1)]))

    measurements: list[Measurement] = []
    for block_sizes in tqdm(choices, unit="choice", dynamic_ncols=True):
        measurements.append(_measure_or_find(log, workload, block_sizes, arguments))
        result_table(measurements, theory).write(arguments.out, "checkpointing")
    with atomic_write(arguments.out / "checkpointing.png") as file:
        file.write(plot(measurements, theory))

    print(f"{processor_name(device)}: {case.name}, {num_layers} layers\n")
    print(result_table(measurements, theory).markdown())
    best = least_memory(measurements)
    if best is not None:
        print(f"\nleast peak memory: {best.name} layers per block ({best.peak_saved / 1e6:,.4g} MB saved)")
    print(
        f"in theory sqrt(N · input / layer) = {theory.ideal_block_size:.2f} layers, where a layer keeps "
        f"{theory.layer / theory.layer_input:.1f} times its input; were they alike, sqrt(N) = {num_layers**0.5:.2f}"
    )
    print(f"table (.md, .tex, .csv) and plot: {arguments.out}")


def _measure_or_find(
    log: ResultLog, workload: Workload, block_sizes: BlockSizes, arguments: argparse.Namespace
) -> Measurement:
    key: dict[str, Any] = workload.case.to_dict() | {
        "block_sizes": list(block_sizes),
        "device": str(workload.device),
        "warmup": arguments.warmup,
        "steps": arguments.steps,
    }
    result = log.find(key)
    if result is not None:
        return Measurement(block_sizes, **result)
    measured = measure_blocks(workload, block_sizes, arguments.warmup, arguments.steps)
    result = {name: value for name, value in vars(measured).items() if name != "block_sizes"}
    log.add(key, result)
    return measured
