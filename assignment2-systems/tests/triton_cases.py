"""Where the tests' Triton kernels run: on the GPU if there is one, else interpreted, in a process of its own."""

import importlib.util
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from cs336_systems.triton_support import interpreter_process

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

needs_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs CUDA: the interpreter cannot compute this")

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")


@contextmanager
def triton_runner() -> Generator[Callable[..., Any], None, None]:
    """`run(function, *arguments)` that calls a module-level function where `DEVICE` runs Triton kernels."""
    if DEVICE.type == "cuda":
        yield lambda function, *arguments: function(*arguments)
    else:
        with interpreter_process() as executor:
            yield lambda function, *arguments: executor.submit(function, *arguments).result()


def _without_tuning(kernel: Any) -> Any:
    import triton

    while not isinstance(kernel, triton.runtime.JITFunction):
        kernel = kernel.fn
    return kernel


def argument_names(kernel: Any) -> list[str]:
    """The names of a kernel's arguments, in order."""
    return _without_tuning(kernel).arg_names


def compile_for_hopper(kernel: Any, types: dict[str, str], constants: dict[str, Any], **options: int) -> Any:
    """Compile a kernel for compute capability 9.0, which needs no GPU: the interpreter takes more than the compiler.

    Args:
        types: Triton's name of each argument's type; `constants` take precedence. Numbers, but those of heads, and
            addresses are taken to be multiples of 16.
    """
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: "constexpr" if name in constants else types[name] for name in argument_names(kernel)}
    aligned = [index for index, name in enumerate(signature) if signature[name][0] in "*i" and name != "num_heads"]
    attributes = {(index,): [["tt.divisibility", 16]] for index in aligned}
    source = ASTSource(_without_tuning(kernel), signature, constants, attributes)
    return triton_compile(source, GPUTarget("cuda", 90, 32), options)
