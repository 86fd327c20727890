"""Gradient clipping against `torch.nn.utils.clip_grad_norm_`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.trainer.gradient_clipping import clip_gradient, global_gradient_norm


def _parameters(shapes, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    return parameters


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
    limit=st.sampled_from([1e-4, 1.0, 1e3]),
)
def test_equals_torch(shapes, scale, limit):
    ours, theirs = _parameters(shapes, scale=scale), _parameters(shapes, scale=scale)
    norm = clip_gradient(iter(ours), limit)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs, limit), rtol=1e-5, atol=1e-12)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-5, atol=1e-12)


def test_the_norm_afterwards_is_the_limit():
    parameters = _parameters([(10, 10), (5,)], scale=100)
    before = clip_gradient(parameters, 2.0)
    assert before > 100
    assert global_gradient_norm(parameters).item() == pytest.approx(2.0, rel=1e-5)


def test_small_gradients_are_left_as_they_are():
    parameters = _parameters([(3, 3)], scale=1e-3)
    before = parameters[0].grad.clone()
    clip_gradient(parameters, 1.0)
    assert torch.equal(parameters[0].grad, before)


def test_parameters_without_gradient_are_passed_over():
    parameters = [*_parameters([(4,)], scale=50), torch.nn.Parameter(torch.zeros(2))]
    clip_gradient(parameters, 1.0)
    assert parameters[1].grad is None
    assert clip_gradient([torch.nn.Parameter(torch.zeros(2))], 1.0).item() == 0.0
    assert clip_gradient([], 1.0).item() == 0.0


def test_half_gradients_have_an_accurate_norm():
    parameter = torch.nn.Parameter(torch.zeros(100_000, dtype=torch.bfloat16))
    parameter.grad = torch.full_like(parameter, 0.5)
    assert clip_gradient([parameter], 1e9).item() == pytest.approx(0.5 * 100_000**0.5, rel=1e-5)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(ValueError, match=f"above 0, got {limit}"):
        clip_gradient(_parameters([(2,)]), limit)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_gradients_on_two_devices():
    here, there = _parameters([(4, 4), (4, 4)], scale=10)
    moved = torch.nn.Parameter(there.detach().cuda())
    moved.grad = there.grad.cuda()
    norm = clip_gradient([here, moved], 1.0)
    expected = torch.nn.utils.clip_grad_norm_(_parameters([(4, 4), (4, 4)], scale=10), 1.0)
    torch.testing.assert_close(norm.cpu(), expected)
    assert global_gradient_norm([here, moved]).item() == pytest.approx(1.0, rel=1e-5)
