"""Published speeds of accelerators and of the links between them, for accounting that needs C and W."""

from dataclasses import dataclass

from cs336_basics.command_line import UsageError


@dataclass(frozen=True)
class Hardware:
    """One kind of accelerator with one kind of link.

    Attributes:
        flops: peak of dense bf16 matrix products, C, in FLOP/s.
        bandwidth: bytes/s that one device can receive from the others while it sends as many, W.
        memory: bytes of memory per device.
        source: where the numbers are published.
    """

    flops: float
    bandwidth: float
    memory: float
    source: str

    @property
    def intensity(self) -> float:
        """C / W: the FLOPs a device can do while one byte arrives."""
        return self.flops / self.bandwidth


_H100 = "NVIDIA H100 data sheet (SXM, dense)"
_H200 = "NVIDIA H200 data sheet (SXM, dense)"
_A100 = "NVIDIA A100 80GB data sheet (SXM, dense)"
_SCALING_BOOK = "How to Scale Your Model, part 2, https://jax-ml.github.io/scaling-book/tpus"

PRESETS = {
    "h100-nvlink": Hardware(989e12, 450e9, 80e9, f"{_H100}; NVLink 4: 900 GB/s, half of it each way"),
    "h100-infiniband": Hardware(989e12, 50e9, 80e9, f"{_H100}; one 400 Gb/s NDR InfiniBand port per GPU"),
    "h200-nvlink": Hardware(989e12, 450e9, 141e9, f"{_H200}; NVLink 4: 900 GB/s, half of it each way"),
    "h200-infiniband": Hardware(989e12, 50e9, 141e9, f"{_H200}; one 400 Gb/s NDR InfiniBand port per GPU"),
    "a100-nvlink": Hardware(312e12, 300e9, 80e9, f"{_A100}; NVLink 3: 600 GB/s, half of it each way"),
    "a100-infiniband": Hardware(312e12, 25e9, 80e9, f"{_A100}; one 200 Gb/s HDR InfiniBand port per GPU"),
    "tpu-v5p": Hardware(4.6e14, 1.8e11, 95e9, f"{_SCALING_BOOK}; one axis of the torus, both directions"),
}


def hardware(name: str) -> Hardware:
    """The preset of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PRESETS:
        raise UsageError(f"hardware {name!r} is unknown; allowed are {', '.join(PRESETS)}")
    return PRESETS[name]
