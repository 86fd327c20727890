"""Where the tests' Triton kernels run: on the GPU if there is one, else interpreted, in a process of its own."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from cs336_systems.triton_support import interpreter_process

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

needs_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs CUDA: the interpreter cannot compute this")


@contextmanager
def triton_runner() -> Generator[Callable[..., Any], None, None]:
    """`run(function, *arguments)` that calls a module-level function where `DEVICE` runs Triton kernels."""
    if DEVICE.type == "cuda":
        yield lambda function, *arguments: function(*arguments)
    else:
        with interpreter_process() as executor:
            yield lambda function, *arguments: executor.submit(function, *arguments).result()
