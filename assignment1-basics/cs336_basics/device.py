"""Choosing where tensors live: `auto` takes CUDA, then Apple's MPS, then the CPU."""

import torch

from cs336_basics.command_line import UsageError


def resolve_device(name: str = "auto") -> torch.device:
    """The torch device for `name`.

    Args:
        name: "auto", "cpu", "mps", "cuda" or "cuda:N".

    Raises:
        UsageError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isascii() and index.isdecimal())):
        raise UsageError(f"device {name!r} is unknown; allowed are auto, cpu, cuda, cuda:N and mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name!r} asked for, but torch finds no usable CUDA device here; use auto or cpu")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} asked for, but there are only {torch.cuda.device_count()} CUDA devices")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device {name!r} asked for, but torch finds no MPS device here; use auto or cpu")
    return torch.device(name)
