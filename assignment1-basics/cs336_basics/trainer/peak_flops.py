"""The most floating-point operations per second a device can do: the denominator of model FLOPs utilization (MFU)."""

import re
import time
from functools import cache

import torch

# Dense peaks in TFLOP/s, (bf16 or fp16 tensor cores with fp32 sums, fp32 without TF32), from NVIDIA's data sheets and
# architecture white papers. The first name whose words occur in the device's name counts, so longer names come first.
_NVIDIA_TERAFLOPS = {
    "B200": (2250.0, 75.0),
    "GH200": (989.0, 67.0),
    "H200": (989.0, 67.0),
    "H100 PCIe": (756.0, 51.0),
    "H100 NVL": (835.0, 60.0),
    "H100": (989.0, 67.0),
    "A100": (312.0, 19.5),
    "A10G": (70.0, 35.0),
    "A10": (125.0, 31.2),
    "L40S": (362.0, 91.6),
    "L4": (121.0, 30.3),
    "V100": (125.0, 15.7),
    "T4": (65.0, 8.1),
    "RTX 4090": (165.2, 82.6),
    "RTX 3090": (71.0, 35.6),
}


def nvidia_peak_flops(name: str, dtype: torch.dtype) -> float | None:
    """The data sheet's peak in FLOP/s for a CUDA device's name, or None for one that is not in the table."""
    for key, (half, single) in _NVIDIA_TERAFLOPS.items():
        if re.search(rf"\b{key}\b", name):
            return (half if dtype in (torch.bfloat16, torch.float16) else single) * 1e12
    return None


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Peak FLOP/s of matrix products of `dtype` on `device`.

    CUDA devices are looked up. For CPUs and MPS, where no data sheet fits the threads at hand, it is the best of a few
    1024 x 1024 matrix products timed here, a tenth of a second once per process; MFU is then relative to that.

    Returns:
        FLOP/s, or None for a CUDA device that is not in the table.
    """
    if device.type == "cuda":
        return nvidia_peak_flops(torch.cuda.get_device_name(device), dtype)
    size = 1024
    matrix = torch.full((size, size), 0.5, dtype=dtype, device=device)
    best = float("inf")
    deadline = time.perf_counter() + 0.1
    while time.perf_counter() < deadline or best == float("inf"):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # reading a value waits for an asynchronous device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
