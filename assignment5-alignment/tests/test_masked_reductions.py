"""Masked means and sums against loops over the selected elements."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.masked import masked_mean, masked_normalize
from cs336_basics.command_line import UsageError


def slices(shape, dim):
    """The index of each element of the result, with the indices that are reduced into it."""
    if dim is None:
        yield (), list(itertools.product(*map(range, shape)))
        return
    dim %= len(shape)
    for kept in itertools.product(*(range(size) for axis, size in enumerate(shape) if axis != dim)):
        yield kept, [(*kept[:dim], position, *kept[dim:]) for position in range(shape[dim])]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
def test_equal_loops(data, shape):
    dim = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    constant = data.draw(st.sampled_from([1.0, 7, 0.25]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 100)))
    tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(shape, generator=generator) < 0.6
    mean, normalized = masked_mean(tensor, mask, dim), masked_normalize(tensor, mask, dim, constant)
    for kept, indices in slices(shape, dim):
        chosen = [tensor[index].item() for index in indices if mask[index]]
        assert normalized[kept].item() == pytest.approx(math.fsum(chosen) / constant, abs=1e-13)
        if chosen:
            assert mean[kept].item() == pytest.approx(math.fsum(chosen) / len(chosen), abs=1e-13)
        else:
            assert math.isnan(mean[kept].item())


def test_gradient_is_the_share_of_each_selected_element():
    tensor = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)
    masked_mean(tensor, mask, dim=1).sum().backward()
    expected = mask.double() / torch.tensor([[1.0], [3.0], [4.0]], dtype=torch.float64)
    assert torch.equal(tensor.grad, expected)
    assert torch.autograd.gradcheck(lambda x: masked_normalize(x, mask, 0, 5.0), tensor)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_selected_does_not_count_whatever_it_is(bad):
    tensor = torch.tensor([1.0, bad, 3.0], requires_grad=True)
    mask = torch.tensor([True, False, True])
    assert masked_mean(tensor, mask).item() == 2
    masked_normalize(tensor, mask, normalize_constant=4).backward()
    assert tensor.grad.tolist() == [0.25, 0, 0.25]


def test_masks_of_numbers_and_masks_that_broadcast():
    tensor = torch.arange(6.0).view(2, 3)
    assert masked_mean(tensor, torch.tensor([1, 0, 1])).item() == 2.5
    assert masked_mean(tensor, torch.tensor([[1.0], [0.0]]), dim=0).tolist() == [0, 1, 2]
    assert masked_normalize(tensor, torch.tensor([0, 0, 0])).item() == 0


def test_refuses_a_mask_that_does_not_fit():
    with pytest.raises(UsageError, match=r"mask of shape \(2,\).*tensor of shape \(2, 3\)"):
        masked_mean(torch.zeros(2, 3), torch.ones(2))
