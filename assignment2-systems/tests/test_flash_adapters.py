"""The adapters' flash attention, called as the course's suites call it."""

import pytest
import torch

from .adapters import get_flashattention_autograd_function_pytorch, get_flashattention_autograd_function_triton
from .test_flash_tiled import make_inputs, reference
from .triton_cases import DEVICE, needs_cuda


def check(function, device, is_causal):
    q, k, v, grad = make_inputs((4,), 128, 128, 64)
    expected_out, expected_lse = reference(q, k, v, is_causal)
    expected = torch.autograd.grad(expected_out, (q, k, v), grad.double())
    inputs = [x.detach().to(device).requires_grad_() for x in (q, k, v)]
    out = function.apply(*inputs, is_causal)
    (lse,) = [x for x in out.grad_fn.saved_tensors if x.shape == (4, 128)]
    out.backward(grad.to(device))
    for actual, right in zip(
        (out, lse, *(x.grad for x in inputs)), (expected_out, expected_lse, *expected), strict=True
    ):
        torch.testing.assert_close(actual.detach().cpu().double(), right.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_causal", [False, True])
def test_in_pytorch(is_causal):
    check(get_flashattention_autograd_function_pytorch(), torch.device("cpu"), is_causal)


@needs_cuda
@pytest.mark.parametrize("is_causal", [False, True])
def test_in_triton(is_causal):
    check(get_flashattention_autograd_function_triton(), DEVICE, is_causal)


def test_both_are_autograd_functions():
    for get in (get_flashattention_autograd_function_pytorch, get_flashattention_autograd_function_triton):
        assert issubclass(get(), torch.autograd.Function)
