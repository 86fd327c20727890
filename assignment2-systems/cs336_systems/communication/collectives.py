"""The collectives that are measured: what each one does, the buffers it needs, and how much it must send at least.

Sizes and bandwidths follow nccl-tests (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md): the size S
of a case is the larger of a rank's input and output. Algorithm bandwidth is S / time. Bus bandwidth multiplies it by
the share of S that the best algorithm has to push through each rank's link, so that it can be compared with the link's
speed whatever the number of ranks n:

    all-reduce               2 (n-1)/n        (a reduce-scatter, then an all-gather)
    all-gather, reduce-scatter, all-to-all    (n-1)/n
    broadcast                1
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from cs336_basics.command_line import UsageError


@dataclass(frozen=True)
class Buffers:
    """One rank's tensors: what it gives and what it gets; all-reduce and broadcast work in place, on one tensor."""

    given: Tensor
    got: Tensor

    def fill(self, value: float) -> None:
        """Set the input to one value throughout."""
        self.got.zero_()
        self.given.fill_(value)


@dataclass(frozen=True)
class Collective:
    """One kind of collective.

    Attributes:
        name: as on the command line.
        run: performs it.
        input_parts, output_parts: sizes of input and output in n-ths of S, as functions of n; None: in place.
        bus_factor: bus bandwidth over algorithm bandwidth, as a function of n.
        result: what a rank's output must hold if rank r gives r + 1 throughout, as (its first value, its last value),
            a function of (rank, n).
        gloo_scratch: bytes that gloo sets aside for itself, over S (measured with 2 and 4 processes).
    """

    name: str
    run: Callable[[Buffers], object]
    input_parts: Callable[[int], int]
    output_parts: Callable[[int], int] | None
    bus_factor: Callable[[int], float]
    result: Callable[[int, int], tuple[int, int]]
    gloo_scratch: float

    def buffers(self, size: int, dtype: torch.dtype, device: torch.device) -> Buffers:
        """Tensors for a case of about `size` bytes (rounded so that the ranks' parts are equal)."""
        ranks = dist.get_world_size()
        part = max(1, size // dtype.itemsize // ranks)
        given = torch.zeros(part * self.input_parts(ranks), dtype=dtype, device=device)
        if self.output_parts is None:
            return Buffers(given, given)
        return Buffers(given, torch.zeros(part * self.output_parts(ranks), dtype=dtype, device=device))

    def memory(self, size: int, ranks: int, backend: str) -> int:
        """Bytes that one rank needs for a case of `size` bytes."""
        parts = self.input_parts(ranks) + (0 if self.output_parts is None else self.output_parts(ranks))
        return int(size * (parts / ranks + (self.gloo_scratch if backend == "gloo" else 0)))

    def check(self, buffers: Buffers) -> None:
        """Run it once on known values.

        Raises:
            ArithmeticError: the output is not what it must be; no time of such a group means anything.
        """
        rank, ranks = dist.get_rank(), dist.get_world_size()
        buffers.fill(rank + 1)
        self.run(buffers)
        found = (int(buffers.got[0].item()), int(buffers.got[-1].item()))
        if found != self.result(rank, ranks):
            raise ArithmeticError(f"{self.name} on rank {rank} gave {found} instead of {self.result(rank, ranks)}")


def _whole(ranks: int) -> int:
    return ranks


def _one_part(ranks: int) -> int:
    return 1


def _sum_of_ranks(rank: int, ranks: int) -> tuple[int, int]:
    return (ranks * (ranks + 1) // 2,) * 2


COLLECTIVES = {
    collective.name: collective
    for collective in (
        Collective(
            "all-reduce",
            lambda b: dist.all_reduce(b.given),
            _whole, None, lambda n: 2 * (n - 1) / n, _sum_of_ranks, 0,
        ),
        Collective(
            "all-gather",
            lambda b: dist.all_gather_single(b.got, b.given),
            _one_part, _whole, lambda n: (n - 1) / n, lambda rank, n: (1, n), 1,
        ),
        Collective(
            "reduce-scatter",
            lambda b: dist.reduce_scatter_single(b.got, b.given),
            _whole, _one_part, lambda n: (n - 1) / n, _sum_of_ranks, 1,
        ),
        Collective(
            "broadcast",
            lambda b: dist.broadcast(b.given, 0),
            _whole, None, lambda n: 1.0, lambda rank, n: (1, 1), 0,
        ),
        Collective(
            "all-to-all",
            lambda b: dist.all_to_all_single(b.got, b.given),
            _whole, _whole, lambda n: (n - 1) / n, lambda rank, n: (1, n), 0,
        ),
    )
}  # fmt: skip


def collective(name: str) -> Collective:
    """The collective of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in COLLECTIVES:
        raise UsageError(f"collective {name!r} is unknown; allowed are {', '.join(COLLECTIVES)}")
    return COLLECTIVES[name]
