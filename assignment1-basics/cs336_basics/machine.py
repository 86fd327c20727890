"""What a reader needs to know of a machine to judge a speed measured on it."""

import os
import platform
from pathlib import Path
from typing import Any

import torch


def processor_name(device: torch.device | None = None) -> str:
    """The name of the GPU that `device` is, else of the CPU."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine_description(device: torch.device | None = None) -> dict[str, Any]:
    """System, processor, cores, threads used by torch, and the versions of Python and torch."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(device),
        "CPU cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
    }
