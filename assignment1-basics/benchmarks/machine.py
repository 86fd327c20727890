"""One line that says on what a benchmark ran, and the memory it took there."""

import platform
from importlib.metadata import version

import torch
from fresh_process import peak_bytes

from cs336_basics.machine import processor_name


def describe_machine(threads: int, device: torch.device | str, packages: list[str]) -> str:
    """Processor (or GPU), threads, Python and the versions of the packages compared."""
    device = torch.device(device)
    processor = processor_name(device)
    if device.type != "cuda":
        processor += f" ({platform.machine()}), {threads} threads"
    if device.type == "mps":
        processor += " and its GPU"
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{processor}; {platform.system()}, Python {platform.python_version()}, {versions}"


def peak_memory(device: torch.device) -> int:
    """Bytes: the most this process has held, on the GPU for CUDA, else in main memory."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()
