"""Where Triton kernels run: on CUDA devices, or through Triton's interpreter, which runs them in Python on the CPU.

The interpreter is for testing and for learning: it needs no GPU, and is thousands of times slower than one. The
environment variable TRITON_INTERPRET=1 turns it on; it counts when Triton is imported for the first time.
"""

import importlib.util
import multiprocessing
import os
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch

from cs336_basics.command_line import UsageError


@cache
def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def interpreting() -> bool:
    """Whether kernels go through the interpreter."""
    if "TRITON_INTERPRET" not in os.environ:
        return False  # without the second that importing Triton takes
    import triton

    return triton.knobs.runtime.interpret


def triton_runs_on(device: torch.device) -> bool:
    """Whether our kernels can work on tensors of this device."""
    if not _triton_is_installed():
        return False
    return device.type == "cuda" or (device.type == "cpu" and interpreting())


def require_triton(device: torch.device) -> None:
    """Refuse a device that no kernel can run on.

    Raises:
        UsageError: there is no Triton here, or it cannot work on this device.
    """
    if not triton_runs_on(device):
        raise UsageError(
            f"Triton kernels cannot run on device {str(device)!r} here; allowed is a CUDA device, or the CPU with "
            f"TRITON_INTERPRET=1 in the environment when Python starts"
        )


def _turn_interpreter_on(num_threads: int) -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(num_threads)


@contextmanager
def interpreter_process(num_threads: int = 1) -> Generator[ProcessPoolExecutor, None, None]:
    """A process of its own in which kernels go through the interpreter: this one may have imported Triton already.

    Functions that are submitted must be importable there, and their arguments and results picklable.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_turn_interpreter_on, initargs=(num_threads,)) as executor:
        yield executor
