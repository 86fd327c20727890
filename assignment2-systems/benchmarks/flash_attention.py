"""Time our FlashAttention-2 against the kernels behind torch's `scaled_dot_product_attention`, on a CUDA device.

The peers are its FLASH_ATTENTION and CUDNN_ATTENTION backends, each by itself. Every shape has the same number of
tokens; all sides get the same tensors and take turns, and their results must agree or nothing is reported. TFLOP/s
count 4 · d operations per pair of query and key forward and 10 · d backward, half of that with a causal mask; the
ceiling is a large matrix product on the same device. After `--max_minutes` no further shape is begun; what is done is
on disk by then.

    uv run python benchmarks/flash_attention.py                 # CUDA, about five minutes
    uv run python benchmarks/flash_attention.py --smoke         # any machine: our tiled version on a CPU, seconds
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from tqdm import tqdm

from cs336_basics.command_line import UsageError, run_command
from cs336_basics.device import resolve_device
from cs336_basics.machine import processor_name
from cs336_systems.flash_attention import flash_attention
from cs336_systems.out_of_memory import is_out_of_memory
from cs336_systems.profiling.timing import time_calls
from cs336_systems.result_log import ResultLog
from cs336_systems.result_table import ResultTable

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# Largest difference of results allowed, relative to the largest value: a few roundings of the type.
TOLERANCES = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}
PASSES = {"forward": 4, "forward + backward": 14}
"""Operations per pair of query and key and per dimension of a head: two products forward, five backward."""
ROUNDS = 3
"""Turns of each side."""

Attention = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


@dataclass(frozen=True)
class Shape:
    """One shape of queries, keys and values: (batch, heads, length, d_head)."""

    d_head: int
    length: int
    batch_size: int
    heads: int
    causal: bool

    def flops(self, passes: str) -> float:
        """Operations of the passes, where a causal mask needs half of them."""
        pairs = self.batch_size * self.heads * self.length**2
        return PASSES[passes] * pairs * self.d_head / (2 if self.causal else 1)


def sdpa(backend: SDPBackend) -> Attention:
    """torch's attention through one backend, and no other."""

    def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        with sdpa_kernel([backend]):
            return scaled_dot_product_attention(q, k, v, is_causal=causal)

    return attention


def sides(device: torch.device) -> dict[str, Attention]:
    """Ours and the peers of the device."""
    peers = {"sdpa flash": SDPBackend.FLASH_ATTENTION}
    peers |= {"sdpa cudnn": SDPBackend.CUDNN_ATTENTION} if device.type == "cuda" else {"sdpa math": SDPBackend.MATH}
    return {"ours": flash_attention} | {name: sdpa(backend) for name, backend in peers.items()}


def seconds_per_call(function: Callable[[], object], device: torch.device, milliseconds: int) -> float:
    """Median seconds of a call; on CUDA from events, with a cold cache before each call."""
    if device.type == "cuda":
        from triton.testing import do_bench

        return do_bench(function, warmup=max(1, milliseconds // 4), rep=milliseconds, return_mode="median") / 1e3
    return time_calls(function, device, warmup=1, repeats=10, max_seconds=milliseconds / 1e3).median


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds_per_call(lambda: a @ b, device, 200)


def gradients(attention: Attention, inputs: list[Tensor], grad_output: Tensor, causal: bool) -> tuple[Tensor, ...]:
    """Forward and backward pass."""
    return torch.autograd.grad(attention(*inputs, causal), inputs, grad_output)


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    return ((actual.float() - expected.float()).abs().max() / expected.float().abs().max()).item()


def measure(shape: Shape, device: torch.device, dtype_name: str, milliseconds: int) -> dict[str, dict]:
    """For each side: seconds of both passes, or why there are none.

    Raises:
        UsageError: our results are not the peers'.
    """
    generator = torch.Generator(device).manual_seed(0)
    size = (shape.batch_size, shape.heads, shape.length, shape.d_head)
    dtype = DTYPES[dtype_name]
    inputs = [torch.randn(size, device=device, generator=generator).to(dtype).requires_grad_() for _ in range(3)]
    grad_output = torch.randn(size, device=device, generator=generator).to(dtype)

    results: dict[str, dict] = {}
    expected: list[Tensor] = []
    running: dict[str, dict[str, Callable[[], object]]] = {}
    for name, attention in reversed(sides(device).items()):
        try:
            with torch.no_grad():
                output = attention(*inputs, shape.causal)
            found = [output, *gradients(attention, inputs, grad_output, shape.causal)]
        except RuntimeError as error:
            results[name] = {"error": "out of memory" if is_out_of_memory(error) else str(error).splitlines()[0]}
            continue
        expected = expected or found
        worst = max(itertools.starmap(largest_difference, zip(found, expected, strict=True)))
        if worst > TOLERANCES[dtype_name]:
            raise UsageError(f"{name} differs by {worst:.1e} at {shape}; allowed is {TOLERANCES[dtype_name]:.0e}")
        running[name] = {
            "forward": lambda attention=attention: attention(*inputs, shape.causal),
            "forward + backward": lambda attention=attention: gradients(attention, inputs, grad_output, shape.causal),
        }
    del expected
    for passes in PASSES:
        turns: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(ROUNDS):
            for name, functions in running.items():
                with torch.set_grad_enabled(passes != "forward"):
                    turns[name].append(seconds_per_call(functions[passes], device, milliseconds))
        for name, seconds in turns.items():
            results.setdefault(name, {})[passes] = statistics.median(seconds)
    return results


def result_table(results: list[tuple[Shape, dict]], names: list[str], ceiling: float) -> ResultTable:
    """TFLOP/s of every side, ours relative to each peer's, and our share of the ceiling."""
    peers = names[1:]
    speed_columns = [f"{name}, TFLOP/s" for name in names]
    ratio_columns = [f"ours / {other}" for other in (*peers, "matmul")]
    table = ResultTable(["d", "mask", "length", "batch", "passes", *speed_columns, *ratio_columns])
    for shape, sides_of_shape in results:
        for passes in PASSES:
            speeds = {
                name: shape.flops(passes) / side[passes] / 1e12
                for name, side in sides_of_shape.items()
                if passes in side
            }
            cells = [speeds.get(name, sides_of_shape.get(name, {}).get("error")) for name in names]
            ours = speeds.get("ours")
            ratios = [ours / speeds[peer] if ours and peer in speeds else None for peer in peers]
            mask = "causal" if shape.causal else "full"
            share = ours * 1e12 / ceiling if ours else None
            table.rows.append([shape.d_head, mask, shape.length, shape.batch_size, passes, *cells, *ratios, share])
    return table


def shapes_of(arguments: argparse.Namespace) -> list[Shape]:
    """Every combination, short ones first; sequences are as many as give the number of tokens.

    Raises:
        UsageError: a number is out of range.
    """
    for name in ("length", "d_head", "tokens", "width", "milliseconds", "max_minutes"):
        values = getattr(arguments, name)
        for value in values if isinstance(values, list) else [values]:
            if not value > 0:
                raise UsageError(f"{name} is {value}; allowed is any number above 0")
    return [
        Shape(d_head, length, max(1, arguments.tokens // length), max(1, arguments.width // d_head), causal)
        for length, d_head, causal in itertools.product(arguments.length, arguments.d_head, (True, False))
    ]


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    lengths = [2**power for power in range(9, 17)]
    add("--length", nargs="+", type=int, default=lengths, help="tokens per sequence (default: 512 … 65,536)")
    add("--d_head", nargs="+", type=int, default=[64, 128], help="head dimensions (default: 64 128)")
    add("--tokens", type=int, default=65_536, help="tokens per batch (default: %(default)s)")
    add("--width", type=int, default=2048, help="heads times head dimension (default: %(default)s)")
    add("--dtype", choices=list(DTYPES), default="bfloat16", help="of the tensors (default: %(default)s)")
    add("--milliseconds", type=int, default=60, help="of timed calls per side and turn (default: %(default)s)")
    add("--max_minutes", type=float, default=5.0, help="then begin no further shape (default: %(default)s)")
    add("--device", default="auto", help="auto, cuda or cuda:N; with --smoke also cpu (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/flash_attention"), help="folder of the table (default: %(default)s)")
    add("--resume", action="store_true", help="keep the results in the folder, measure the others")
    add("--smoke", action="store_true", help="a few small shapes in float32, on a CPU too")
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        arguments.length, arguments.tokens, arguments.width, arguments.dtype = [64, 256], 512, 128, "float32"
    device = resolve_device(arguments.device)
    if device.type != "cuda" and not arguments.smoke:
        raise UsageError(f"this benchmark needs a CUDA device, and {arguments.device!r} gives {device}; or add --smoke")
    if device.type == "cuda" and arguments.smoke:
        arguments.dtype = "bfloat16"  # torch's kernels for CUDA have no float32

    shapes = shapes_of(arguments)
    deadline = time.monotonic() + 60 * arguments.max_minutes
    dtype = DTYPES[arguments.dtype]
    names = list(sides(device))
    log = ResultLog(arguments.out / "results.jsonl", arguments.resume)
    ceiling = matmul_ceiling(device, dtype)
    print(
        f"{processor_name(device)}; torch {torch.__version__}, triton {version('triton')}; {arguments.dtype}, "
        f"{arguments.tokens:,} tokens of width {arguments.width}; matrix product: {ceiling / 1e12:.3g} TFLOP/s"
    )
    results: list[tuple[Shape, dict]] = []
    left_out = 0
    for shape in tqdm(shapes, unit="shape", dynamic_ncols=True):
        key = asdict(shape) | {"dtype": arguments.dtype, "device": processor_name(device)}
        result = log.find(key)
        if result is None and time.monotonic() > deadline:
            left_out += 1
            continue
        if result is None:
            result = measure(shape, device, arguments.dtype, arguments.milliseconds)
            log.add(key, result)
        results.append((shape, result))
        result_table(results, names, ceiling).write(arguments.out, "flash_attention")
    print(f"\n{result_table(results, names, ceiling).markdown()}\n\ntable (.md, .tex, .csv): {arguments.out}")
    if left_out:
        print(f"{left_out} shapes were left out after {arguments.max_minutes:g} minutes; --resume measures them")


if __name__ == "__main__":
    run_command(main)
