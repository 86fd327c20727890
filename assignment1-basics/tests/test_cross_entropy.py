"""The loss and its hand-written gradient against torch's and against finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.trainer import cross_entropy as module
from cs336_basics.trainer.cross_entropy import cross_entropy


def _reference(logits, targets):
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def _case(shape, vocab, dtype=torch.float64, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(*shape, vocab, generator=generator, dtype=torch.float64) * scale).to(dtype)
    return logits.requires_grad_(), torch.randint(vocab, shape, generator=generator)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    vocab=st.integers(1, 40),
    scale=st.sampled_from([0.0, 1.0, 50.0, 5000.0]),
    seed=st.integers(0, 10**6),
)
def test_value_and_gradient_equal_torch(shape, vocab, scale, seed):
    logits, targets = _case(tuple(shape), vocab, scale=scale, seed=seed)
    loss, expected = cross_entropy(logits, targets), _reference(logits, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad(3 * loss, logits)
    (reference,) = torch.autograd.grad(3 * expected, logits)
    torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    logits, targets = _case((13,), 11)
    whole = cross_entropy(logits, targets)
    (expected,) = torch.autograd.grad(whole, logits)
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS_CPU", 25)  # two rows at a time, and one left over
    loss = cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, whole, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_gradient_against_finite_differences():
    logits, targets = _case((2, 3), 5)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, targets), logits)


def test_huge_logits_stay_finite():
    logits = torch.tensor([[1000.0, 2000.0, -3000.0], [1e30, -1e30, 0.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([1, 0]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(logits.grad).all()
    assert cross_entropy(torch.tensor([[1000.0, 0.0]]), torch.tensor([1])).item() == 1000.0


def test_impossible_classes_are_allowed():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.6931472)
    assert logits.grad.tolist() == [[-0.5, 0.0, 0.5]]


def test_bf16_logits_are_summed_in_fp32():
    logits, targets = _case((64,), 5000, dtype=torch.bfloat16)
    loss = cross_entropy(logits, targets)
    exact = logits.detach().double().requires_grad_()
    expected = _reference(exact, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=2**-7, atol=1e-10)


def test_backward_twice_gives_the_gradient_twice():
    logits, targets = _case((4,), 7)
    loss = cross_entropy(logits, targets)
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    loss.backward()
    torch.testing.assert_close(logits.grad, 2 * once)


def test_logits_that_are_no_leaf_and_not_contiguous():
    base, targets = _case((6,), 9)
    logits = (base * 2).t().contiguous().t()
    (gradient,) = torch.autograd.grad(cross_entropy(logits, targets), base)
    (expected,) = torch.autograd.grad(_reference(base * 2, targets), base)
    torch.testing.assert_close(gradient, expected)


def test_nothing_of_the_logits_size_is_kept_for_the_backward_pass_but_the_logits():
    logits, targets = _case((50,), 1000)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        cross_entropy(logits, targets)
    others = [tensor for tensor in kept if tensor.data_ptr() != logits.data_ptr()]
    assert sum(tensor.numel() for tensor in others) == 2 * 50


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2, 5\).*\(2,\)"):
        cross_entropy(torch.zeros(2, 5), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="at least one target"):
        cross_entropy(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))


def test_target_outside_the_vocabulary_is_refused():
    with pytest.raises(RuntimeError, match="out of bounds"):
        cross_entropy(torch.zeros(2, 5), torch.tensor([1, 5]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_equals_torch():
    logits, targets = _case((64,), 1000, dtype=torch.float32)
    logits, targets = logits.detach().cuda().requires_grad_(), targets.cuda()
    torch.testing.assert_close(cross_entropy(logits, targets), _reference(logits, targets))
    (gradient,) = torch.autograd.grad(cross_entropy(logits, targets), logits)
    (expected,) = torch.autograd.grad(_reference(logits, targets), logits)
    torch.testing.assert_close(gradient, expected)
