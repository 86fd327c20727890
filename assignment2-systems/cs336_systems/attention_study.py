"""Plain, compiled and flash attention side by side: time, memory before the backward pass, and where memory ends.

A batch without heads, as the handout has it: queries, keys and values (batch, length, head dimension).
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.curves import figure_png, tidy
from cs336_basics.device import resolve_device
from cs336_basics.machine import processor_name
from cs336_basics.model.attention import AttentionFunction
from cs336_systems.attention_choice import attention_function
from cs336_systems.checkpointing.saved_tensors import count_saved_tensors
from cs336_systems.out_of_memory import is_out_of_memory
from cs336_systems.profiling.timing import Timing, time_calls
from cs336_systems.result_log import ResultLog
from cs336_systems.result_table import ResultTable

IMPLEMENTATIONS = ("plain", "compiled", "flash")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OUT_OF_MEMORY = "out of memory"
_COLORS = {"plain": "#8c1515", "compiled": "#2f6db3", "flash": "#3f8f5f"}


@dataclass(frozen=True)
class AttentionCase:
    """One row: an implementation at one shape; `dtype` is a key of `DTYPES`."""

    implementation: str
    d_head: int
    length: int
    batch_size: int
    dtype: str
    causal: bool


@dataclass(frozen=True)
class Effort:
    """How long a case is measured: `warmup` calls, then `passes` timed ones, or fewer once they took `max_seconds`."""

    warmup: int
    passes: int
    max_seconds: float


def implementation(name: str) -> AttentionFunction:
    """The function that a name in `IMPLEMENTATIONS` stands for."""
    if name != "compiled":
        return attention_function(name)
    torch.compiler.reset()  # each shape is compiled by itself, as a model of that shape would be
    return torch.compile(attention_function("plain"), dynamic=False)


def predicted_bytes(case: AttentionCase) -> int:
    """Bytes that a case will hold at its peak, on a CPU, at most.

    Plain attention holds in its backward pass: scores, masked scores, exponentials, weights, and gradients of the last
    three, each (length, length) in at least float32, with a causal mask of one byte per entry. A compiler may keep as
    many. Flash attention holds a few tensors of the inputs' size in float32, and tiles.
    """
    inputs = case.batch_size * case.length * case.d_head * 4
    if case.implementation == "flash":
        return 16 * inputs + 64 * 1024 * case.batch_size * 4
    matrix = case.batch_size * case.length**2 * 4
    return 16 * inputs + 7 * matrix + 3 * case.length**2


def measure_case(case: AttentionCase, device: torch.device, effort: Effort, memory_limit: int | None) -> dict[str, Any]:
    """Measure one case.

    Args:
        case: what is measured.
        device: where.
        effort: for how long.
        memory_limit: bytes; a case predicted to need more is not run. None runs it in any case.

    Returns:
        `forward`, `backward`: seconds of each timed call. `saved_bytes`: memory in use before the backward pass, the
        allocator's on CUDA, else that of the inputs, the output and what autograd saved. Or `error`: a sentence.
    """
    if memory_limit is not None and predicted_bytes(case) > memory_limit:
        return {"error": f"{OUT_OF_MEMORY} (needs up to {predicted_bytes(case) / 1e9:.3g} GB)"}
    try:
        return _measure(case, device, effort)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {"error": OUT_OF_MEMORY}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measure(case: AttentionCase, device: torch.device, effort: Effort) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(0)
    shape = (case.batch_size, case.length, case.d_head)
    made = {"dtype": DTYPES[case.dtype], "device": device, "generator": generator}
    inputs = [torch.randn(shape, **made).requires_grad_() for _ in range(3)]
    grad_output = torch.randn(shape, **made)
    attention = implementation(case.implementation)

    def forward() -> Tensor:
        return attention(*inputs, case.causal)

    limits = {"warmup": effort.warmup, "repeats": effort.passes, "max_seconds": effort.max_seconds}
    forward_times = time_calls(forward, device, **limits)
    saved_bytes = _memory_before_backward(forward, inputs, grad_output, device)
    output: list[Tensor] = []

    def prepare() -> None:
        output[:] = [forward()]
        for x in inputs:
            x.grad = None

    backward_times = time_calls(lambda: output[0].backward(grad_output), device, prepare=prepare, **limits)
    return {"forward": forward_times.seconds, "backward": backward_times.seconds, "saved_bytes": saved_bytes}


def _memory_before_backward(
    forward: Callable[[], Tensor], inputs: list[Tensor], grad_output: Tensor, device: torch.device
) -> int:
    if device.type == "cuda":
        output = forward()
        return torch.cuda.memory_allocated(device)
    with count_saved_tensors() as saved:
        output = forward()
        storages = {x.untyped_storage().data_ptr(): x.nbytes for x in (*inputs, output, grad_output)}
        return sum((saved.storages | storages).values())


def result_table(results: Sequence[tuple[AttentionCase, dict[str, Any]]]) -> ResultTable:
    """Medians in milliseconds, memory in MB (10^6 bytes), and each time relative to plain attention's."""
    measured = ["forward, ms", "backward, ms", "memory before backward, MB"]
    table = ResultTable(["d", "length", "attention", *measured, "forward, plain = 1", "backward, plain = 1"])
    medians: dict[AttentionCase, tuple[float, float]] = {
        case: (Timing(tuple(result["forward"])).median, Timing(tuple(result["backward"])).median)
        for case, result in results
        if "error" not in result
    }
    for case, result in results:
        row: list = [case.d_head, case.length, case.implementation]
        if case not in medians:
            table.rows.append([*row, result["error"], None, None, None, None])
            continue
        plain = medians.get(AttentionCase(**(asdict(case) | {"implementation": "plain"})))
        ratios = [None, None] if plain is None else [own / p for own, p in zip(medians[case], plain, strict=True)]
        row += [1e3 * seconds for seconds in medians[case]]
        table.rows.append([*row, result["saved_bytes"] / 1e6, *ratios])
    return table


def plot(results: Sequence[tuple[AttentionCase, dict[str, Any]]]) -> bytes:
    """Time forward, time backward and memory against the length, one line per implementation and head dimension."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    dimensions = sorted({case.d_head for case, _ in results})
    styles = dict(zip(dimensions, itertools.cycle(["-", "--", "-.", ":"]), strict=False))
    panels = {
        "forward, ms": lambda result: 1e3 * Timing(tuple(result["forward"])).median,
        "backward, ms": lambda result: 1e3 * Timing(tuple(result["backward"])).median,
        "memory before backward, MB": lambda result: result["saved_bytes"] / 1e6,
    }
    for axes, (label, value) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name, d_head in itertools.product(IMPLEMENTATIONS, dimensions):
            chosen = [
                (case.length, value(result))
                for case, result in results
                if (case.implementation, case.d_head) == (name, d_head) and "error" not in result
            ]
            if chosen:
                axes.loglog(
                    *zip(*sorted(chosen), strict=True),
                    base=2, marker=".", color=_COLORS[name], linestyle=styles[d_head], label=f"{name}, d = {d_head}",
                )  # fmt: skip
        tidy(axes, "length, tokens", label)
    figure.axes[0].legend(frameon=False, fontsize="x-small")
    return figure_png(figure)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="attention_study.py",
        description="Time attention forward and backward, and count its memory, over head dimension and length. "
        "A case that does not fit into memory says so in its row.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--implementations", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS), help="what to compare")
    add("--d_head", nargs="+", type=int, default=[16, 32, 64, 128], metavar="D", help="head dimensions")
    add(
        "--length",
        nargs="+",
        type=int,
        default=[256, 1024, 4096, 8192, 16_384],
        metavar="N",
        help="tokens per sequence",
    )
    add("--batch_size", type=int, default=8, help="sequences")
    add("--dtype", choices=list(DTYPES), default="float32", help="of queries, keys and values")
    add("--causal", action=argparse.BooleanOptionalAction, default=True, help="mask the future")
    add("--warmup", type=int, default=2, help="calls before those that are timed")
    add("--passes", type=int, default=100, help="the most calls that are timed, forward and backward each")
    add("--max_seconds", type=float, default=2.0, help="seconds after which a case's timed calls end, forward and "
        "backward each; the handout's 100 passes: inf")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add(
        "--memory_limit",
        type=float,
        default=None,
        help="GB (10^9 bytes); on a CPU, a case predicted to need more is not run; none: 70 %% of what is free",
    )
    add("--out", type=Path, default=Path("runs/attention"), help="folder of the tables and the plot")
    add("--resume", action="store_true", help="go on with an interrupted run: keep the results in the folder")
    add("--smoke", action="store_true", help="one short length, batch 2, d 16: less than a minute")
    return parser


def _cases(arguments: argparse.Namespace) -> list[AttentionCase]:
    for name in ("d_head", "length", "batch_size", "passes"):
        values = getattr(arguments, name)
        for value in values if isinstance(values, list) else [values]:
            if value < 1:
                raise UsageError(f"{name} is {value}; allowed is any whole number above 0")
    if arguments.warmup < 0:
        raise UsageError(f"warmup is {arguments.warmup}; allowed is any whole number of at least 0")
    for name in ("max_seconds", "memory_limit"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise UsageError(f"{name} is {value}; allowed is any number above 0")
    return [
        AttentionCase(name, d_head, length, arguments.batch_size, arguments.dtype, arguments.causal)
        for d_head, length, name in itertools.product(arguments.d_head, arguments.length, arguments.implementations)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: measure every case, write table and plot."""
    arguments = build_parser().parse_args(argv)
    if arguments.smoke:
        arguments.d_head, arguments.length, arguments.batch_size, arguments.passes = [16], [128], 2, 3
    cases, device = _cases(arguments), resolve_device(arguments.device)
    effort = Effort(arguments.warmup, arguments.passes, arguments.max_seconds)
    memory_limit = None if arguments.memory_limit is None else int(arguments.memory_limit * 1e9)
    if memory_limit is None and device.type == "cpu":
        memory_limit = int(0.7 * psutil.virtual_memory().available)
    log = ResultLog(arguments.out / "results.jsonl", arguments.resume)
    results: list[tuple[AttentionCase, dict[str, Any]]] = []
    for case in tqdm(cases, unit="case", dynamic_ncols=True):
        key = asdict(case) | asdict(effort) | {"device": str(device)}
        result = log.find(key)
        if result is None:
            result = measure_case(case, device, effort, memory_limit)
            log.add(key, result)
        results.append((case, result))
        result_table(results).write(arguments.out, "attention")
    with atomic_write(arguments.out / "attention.png") as file:
        file.write(plot(results))
    mask = "causal" if arguments.causal else "full"
    print(f"{processor_name(device)}: batch {arguments.batch_size}, {arguments.dtype}, {mask}\n")
    print(f"{result_table(results).markdown()}\n\ntable (.md, .tex, .csv) and plot: {arguments.out}")
