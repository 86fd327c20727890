"""Every random number generator of the process, captured in plain values and restored."""

import random
from typing import Any

import numpy as np
import torch


def capture_random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators (CPU, every CUDA device once CUDA is in use, MPS).

    Only tensors and plain values, so `torch.load(..., weights_only=True)` reads it back.
    """
    numpy_state = np.random.get_state(legacy=False)
    inner = {name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
             for name, value in numpy_state["state"].items()}  # fmt: skip
    state = {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": inner},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Set the generators as `capture_random_state` found them; devices that are not here are passed over."""
    random.setstate(state["python"])
    inner = {name: value.numpy() if isinstance(value, torch.Tensor) else value
             for name, value in state["numpy"]["state"].items()}  # fmt: skip
    np.random.set_state({**state["numpy"], "state": inner})
    torch.set_rng_state(state["torch"].cpu())
    for index, value in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(value.cpu(), index)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"].cpu())
