"""The fused optimizer against torch's AdamW and against ours, with which it shares checkpoints."""

import pytest
import torch

from cs336_basics.trainer.AdamW import AdamW
from cs336_systems.fused.adamw import FusedAdamW

from .triton_cases import DEVICE, argument_names, compile_for_hopper, needs_triton, triton_runner

SHAPES = [(40, 50), (7,), (1, 3, 5)]
SETTINGS = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2}


@pytest.fixture(scope="module")
def run_triton():
    with triton_runner() as run:
        yield run


def train(optimizer_class, dtype, device, steps=5, checkpoint=None, transposed=False):
    """Parameters after some steps on given gradients, and the optimizer's state dict."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]
    if transposed:
        parameters[0] = parameters[0].T
    parameters = [torch.nn.Parameter(x.to(device)) for x in parameters]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "weight_decay": 0.0}]
    optimizer = optimizer_class(groups, **SETTINGS)
    if checkpoint is not None:
        values, state_dict = checkpoint
        optimizer.load_state_dict(state_dict)
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data.copy_(value)
    done = 0 if checkpoint is None else 5
    for step in range(done, done + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(device, dtype)
        optimizer.step()
    return [x.detach().cpu() for x in parameters], optimizer.state_dict()


def check_close(actual, expected, tolerance):
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


def test_the_fallback_equals_torch():
    check_close(train(FusedAdamW, torch.float32, "cpu")[0], train(torch.optim.AdamW, torch.float32, "cpu")[0], 1e-6)


def test_triton_equals_torch(run_triton):
    actual, _ = run_triton(train, FusedAdamW, torch.float32, DEVICE)
    check_close(actual, train(torch.optim.AdamW, torch.float32, "cpu")[0], 1e-6)


def test_triton_equals_float64(run_triton):
    actual, _ = run_triton(train, FusedAdamW, torch.float32, DEVICE)
    expected, _ = train(torch.optim.AdamW, torch.float64, "cpu")
    # The same random numbers, rounded: they are drawn in fp32 either way.
    check_close([x.double() for x in actual], expected, 1e-6)


def test_triton_keeps_fp32_moments_of_half_precision_parameters(run_triton):
    actual, state_dict = run_triton(train, FusedAdamW, torch.float16, DEVICE)
    check_close(actual, train(AdamW, torch.float16, "cpu")[0], 1e-3)
    assert state_dict["state"][0]["exp_avg"].dtype == torch.float32


def test_parameters_that_are_not_contiguous_take_the_fallback(run_triton):
    actual, _ = run_triton(train, FusedAdamW, torch.float32, DEVICE, 5, None, True)
    check_close(actual, train(AdamW, torch.float32, "cpu", transposed=True)[0], 1e-6)


@pytest.mark.parametrize(("first", "second"), [(AdamW, FusedAdamW), (FusedAdamW, AdamW)])
def test_checkpoints_go_from_one_optimizer_to_the_other(run_triton, first, second):
    checkpoint = run_triton(train, first, torch.float32, DEVICE)
    resumed, _ = run_triton(train, second, torch.float32, DEVICE, 5, checkpoint)
    through, state_dict = train(AdamW, torch.float32, "cpu", 10)
    check_close(resumed, through, 1e-6)
    assert checkpoint[1].keys() == state_dict.keys()
    assert checkpoint[1]["state"][0].keys() == state_dict["state"][0].keys()


@needs_triton
def test_the_kernel_compiles_to_wide_loads(monkeypatch, tmp_path):
    from cs336_systems.fused.adamw_kernel import _adamw_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types = dict.fromkeys(argument_names(_adamw_kernel), "fp32") | {"count": "i32"}
    types |= dict.fromkeys(("Parameter", "Gradient", "First", "Second"), "*fp32")
    compiled = compile_for_hopper(_adamw_kernel, types, {"BLOCK": 1024})
    assert "ld.global.v4.b32" in compiled.asm["ptx"]
