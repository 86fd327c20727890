"""The fused norm against torch's RMSNorm in float64."""

import pytest
import torch

from cs336_basics.model import RMSNorm
from cs336_systems.fused.rms_norm import FusedRMSNorm, rms_norm

from .triton_cases import DEVICE, argument_names, compile_for_hopper, needs_triton, triton_runner

EPS = 1e-5


@pytest.fixture(scope="module")
def run_triton():
    with triton_runner() as run:
        yield run


def make_inputs(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return x, torch.rand(shape[-1], generator=generator) + 0.5, grad


def normalize(shape, dtype, transposed=False):
    """The norm and its gradients."""
    x, weight, grad = (value.to(DEVICE) for value in make_inputs(shape, dtype))
    if transposed:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    y = rms_norm(x, weight, EPS)
    return [value.detach().cpu() for value in (y, *torch.autograd.grad(y, (x, weight), grad))]


def check(results, shape, dtype, tolerance):
    x, weight, grad = make_inputs(shape, dtype)
    x64, weight64 = x.double().requires_grad_(), weight.double().requires_grad_()
    y = torch.nn.functional.rms_norm(x64, (shape[-1],), weight64, EPS)
    expected = y, *torch.autograd.grad(y, (x64, weight64), grad.double())
    assert [value.dtype for value in results] == [dtype, dtype, torch.float32]
    for actual, right in zip(results, expected, strict=True):
        torch.testing.assert_close(actual.double(), right.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(2, 3, 64), (5, 40), (1, 1), (7,)])
def test_triton_equals_torch(run_triton, shape):
    check(run_triton(normalize, shape, torch.float32), shape, torch.float32, tolerance=1e-5)


def test_triton_takes_half_precision_and_other_layouts(run_triton):
    check(run_triton(normalize, (4, 3, 48), torch.float16), (4, 3, 48), torch.float16, tolerance=5e-3)
    check(run_triton(normalize, (4, 3, 48), torch.float32, True), (4, 3, 48), torch.float32, tolerance=1e-5)


def test_the_fallback_equals_torch():
    x, weight, _ = make_inputs((4, 16), torch.float64)
    x, weight = x.requires_grad_(), weight.double().requires_grad_()
    torch.testing.assert_close(rms_norm(x, weight, EPS), torch.nn.functional.rms_norm(x, (16,), weight, EPS))
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, EPS), (x, weight))


def test_nothing_to_normalize():
    assert rms_norm(torch.zeros(0, 8), torch.ones(8), EPS).shape == (0, 8)


def test_the_layer_loads_the_plain_layers_weights():
    plain, fused = RMSNorm(8), FusedRMSNorm(8)
    torch.nn.init.normal_(plain.weight)
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fused(x), plain(x))


@needs_triton
@pytest.mark.parametrize("which", ["_forward_kernel", "_backward_kernel"])
def test_the_kernels_compile(which, monkeypatch, tmp_path):
    from cs336_systems.fused import rms_norm_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(rms_norm_kernel, which)
    types = dict.fromkeys(argument_names(kernel), "i32") | {"eps": "fp32"}
    types |= dict.fromkeys(("X", "Y", "Grad", "GradX"), "*bf16")
    types |= dict.fromkeys(("Weight", "InverseRMS", "PartialGradWeight"), "*fp32")
    compile_for_hopper(kernel, types, {"BLOCK": 1024}, num_warps=2)
