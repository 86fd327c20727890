"""One line that says on what a benchmark ran."""

import platform
from importlib.metadata import version
from pathlib import Path

import torch


def describe_machine(threads: int, device: str, packages: list[str]) -> str:
    """Processor (or GPU), threads, Python and the versions of the packages compared."""
    if device.startswith("cuda"):
        processor = torch.cuda.get_device_name()
    else:
        info = Path("/proc/cpuinfo")
        names = (
            [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
            if info.exists()
            else []
        )
        processor = f"{names[0] if names else platform.processor()} ({platform.machine()}), {threads} threads"
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{processor}; {platform.system()}, Python {platform.python_version()}, {versions}"
