"""What half precision does to sums, and what autocast does to the parts of a model.

The first table adds 0.01 a thousand times in different types. The second is a forward and a backward pass of a toy
model under `torch.autocast`, whose rules differ from device to device: what is shown is what happened here.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.model import Linear, RMSNorm
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.result_table import ResultTable

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def accumulate(addend: torch.dtype, total: torch.dtype, count: int, value: float = 0.01) -> float:
    """The sum of `count` copies of `value`, one after another.

    Args:
        addend: the type in which the value is rounded first.
        total: the type of the running sum. A lower type of the addend is widened for the addition.
        count: number of additions.
        value: what is added.
    """
    result = torch.zeros((), dtype=total)
    for _ in range(count):
        result += torch.tensor(value, dtype=addend)
    return result.item()


def accumulation_table(count: int = 1000) -> ResultTable:
    """Sums of `count` times 0.01, with each type for the values and for the sum."""
    table = ResultTable(["values in", "sum in", "sum", "exact", "relative error"])
    exact = count / 100
    for addend, total in (
        ("float32", "float32"),
        ("float16", "float16"),
        ("float16", "float32"),
        ("bfloat16", "bfloat16"),
        ("bfloat16", "float32"),
    ):
        result = accumulate(DTYPES[addend], DTYPES[total], count)
        table.rows.append([addend, total, f"{result:.6g}", exact, abs(result - exact) / exact])
    return table


class ToyModel(nn.Module):
    """Two linear layers with a ReLU, a LayerNorm and an RMSNorm between them; it notes the type of each result.

    The LayerNorm is torch's operator, for which autocast may have a rule; our RMSNorm widens its input itself.
    """

    def __init__(self, d_in: int = 8, d_hidden: int = 16, num_classes: int = 4) -> None:
        super().__init__()
        self.fc1 = Linear(d_in, d_hidden)
        self.rms_norm = RMSNorm(d_hidden)
        self.fc2 = Linear(d_hidden, num_classes)
        self.dtypes: dict[str, torch.dtype] = {}

    def _note(self, name: str, x: Tensor) -> Tensor:
        self.dtypes[name] = x.dtype
        return x

    def forward(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch classes"]:
        x = self._note("first linear layer (matrix product)", self.fc1(x))
        x = self._note("ReLU", torch.relu(x))
        x = self._note("LayerNorm (torch.layer_norm)", torch.layer_norm(x, x.shape[-1:]))
        x = self._note("RMSNorm (ours)", self.rms_norm(x))
        self._note("exponential", torch.exp(x))
        self._note("sum over 16 values", x.sum(dim=-1))
        return self._note("logits (matrix product)", self.fc2(x))


def autocast_dtypes(device: torch.device, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The types of parameters, results, loss and gradients in one step of `ToyModel` under autocast."""
    torch.manual_seed(0)
    model = ToyModel().to(device)
    x: Float[Tensor, "batch d_in"] = torch.randn(4, 8, device=device)
    targets: Int[Tensor, " batch"] = torch.arange(4, device=device)
    with torch.autocast(device.type, dtype):
        loss = cross_entropy(model(x), targets)
    loss.backward()
    return (
        {"parameters": model.fc1.weight.dtype}
        | model.dtypes
        | {"loss (ours)": loss.dtype, "gradients of the parameters": model.fc1.weight.grad.dtype}
    )


def autocast_table(device: torch.device) -> ResultTable:
    """Types under autocast to bfloat16 and, on a GPU, to float16; one row for each part."""
    names = ["bfloat16"] + ["float16"] * (device.type == "cuda")
    columns = [autocast_dtypes(device, DTYPES[name]) for name in names]
    table = ResultTable(["part", *(f"autocast to {name} on {device.type}" for name in names)])
    for part in columns[0]:
        table.rows.append([part, *(str(column[part]).removeprefix("torch.") for column in columns)])
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """The command: print both tables and write them."""
    parser = argparse.ArgumentParser(
        prog="mixed_precision.py",
        description="Show what half precision does to long sums, and which parts of a model autocast changes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=1000, help="how many times 0.01 is added")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--out", type=Path, default=Path("runs/mixed_precision"), help="folder of the tables")
    parser.add_argument("--smoke", action="store_true", help="the whole of it takes seconds: this changes nothing")
    arguments = parser.parse_args(argv)
    if arguments.count < 1:
        raise UsageError(f"count is {arguments.count}; allowed is any whole number above 0")
    accumulation, autocast = accumulation_table(arguments.count), autocast_table(resolve_device(arguments.device))
    accumulation.write(arguments.out, "accumulation")
    autocast.write(arguments.out, "autocast")
    print(f"0.01 added {arguments.count:,} times\n\n{accumulation.markdown()}\n\n{autocast.markdown()}\n")
    print(f"tables (.md, .tex, .csv): {arguments.out}")
