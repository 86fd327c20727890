"""Log-probabilities and entropies against log_softmax and autograd, for each kind of model."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cs336_alignment import log_probs as module
from cs336_alignment.log_probs import PLAIN_HEADS, body_and_head, compute_entropy, get_response_log_probs
from cs336_basics.command_line import UsageError

from .tiny_models import tiny_model

VOCAB = 320


def naive(logits, labels):
    """log p[label] and entropy, with every intermediate tensor."""
    log_p = logits.log_softmax(dim=-1)
    return log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1), -(log_p.exp() * log_p).sum(dim=-1)


def make_batch(rows=3, seq=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    input_ids, labels = torch.randint(VOCAB, (2, rows, seq), generator=generator)
    mask = torch.rand(rows, seq, generator=generator) < 0.5
    weights = torch.randn(2, rows, seq, generator=generator, dtype=torch.float64)
    return input_ids, labels, mask, weights


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("model_type", sorted(PLAIN_HEADS))
def test_every_model_type_with_a_plain_head(model_type):
    model = tiny_model(model_type)
    assert body_and_head(model) is not None
    input_ids, labels, mask, weights = make_batch()
    expected = naive(model(input_ids).logits, labels)
    expected_gradients = gradients(model, sum((w * x * mask).sum() for w, x in zip(weights, expected, strict=True)))
    for chunk_tokens in (None, 4, 1000):
        scored = get_response_log_probs(
            model, input_ids, labels, True, response_mask=mask, chunk_tokens=chunk_tokens, entropy_gradient=True
        )
        actual = scored["log_probs"], scored["token_entropy"]
        for mine, right in zip(actual, expected, strict=True):
            torch.testing.assert_close(mine, right * mask, rtol=0, atol=1e-12)
        mine = gradients(model, sum((w * x).sum() for w, x in zip(weights, actual, strict=True)))
        for one, right in zip(mine, expected_gradients, strict=True):
            torch.testing.assert_close(one, right, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_a_mask_may_be_of_numbers(dtype):
    model = tiny_model()
    input_ids, labels, mask, _ = make_batch()
    expected = get_response_log_probs(model, input_ids, labels, response_mask=mask)["log_probs"]
    actual = get_response_log_probs(model, input_ids, labels, response_mask=mask.to(dtype))["log_probs"]
    assert torch.equal(actual, expected)


class Odd(nn.Module):
    """A model that does something to its logits after the head, and keeps the result for its backward pass."""

    def __init__(self):
        super().__init__()
        self.model = tiny_model()

    def forward(self, input_ids):
        output = self.model(input_ids)
        output.logits = 5 * torch.tanh(output.logits)
        return output


@pytest.mark.parametrize("masked", [True, False])
def test_any_other_model_through_its_logits(masked):
    model = Odd()
    assert body_and_head(model) is None
    input_ids, labels, mask, weights = make_batch()
    mask = mask if masked else torch.ones_like(mask)
    expected, entropy = naive(model(input_ids).logits, labels)
    scored = get_response_log_probs(model, input_ids, labels, True, response_mask=mask if masked else None)
    torch.testing.assert_close(scored["log_probs"], expected * mask, rtol=0, atol=1e-12)
    torch.testing.assert_close(scored["token_entropy"], (entropy * mask).detach(), rtol=0, atol=1e-12)
    mine = gradients(model, (weights[0] * scored["log_probs"]).sum())
    for one, right in zip(mine, gradients(model, (weights[0] * expected * mask).sum()), strict=True):
        torch.testing.assert_close(one, right, rtol=0, atol=1e-11)
    with pytest.raises(UsageError, match="chunk_tokens is 4, but Odd"):
        get_response_log_probs(model, input_ids, labels, chunk_tokens=4)


def test_a_model_whose_logits_are_a_parameter_keeps_them():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.randn(2, 3, 7, dtype=torch.float64))

        def forward(self, input_ids):
            return self

    model = Table()
    before = model.logits.detach().clone()
    labels = torch.randint(7, (2, 3))
    get_response_log_probs(model, labels, labels)["log_probs"].sum().backward()
    assert torch.equal(model.logits, before)
    one_hot = nn.functional.one_hot(labels, 7)
    torch.testing.assert_close(model.logits.grad, one_hot - before.softmax(dim=-1), rtol=0, atol=1e-14)


def test_entropy_is_returned_only_when_asked_for_and_is_a_constant():
    model = tiny_model()
    input_ids, labels, _, _ = make_batch()
    assert set(get_response_log_probs(model, input_ids, labels)) == {"log_probs"}
    scored = get_response_log_probs(model, input_ids, labels, return_token_entropy=True)
    assert set(scored) == {"log_probs", "token_entropy"}
    assert scored["log_probs"].requires_grad
    assert not scored["token_entropy"].requires_grad
    with torch.no_grad():
        assert not get_response_log_probs(model, input_ids, labels, chunk_tokens=2)["log_probs"].requires_grad


def test_padding_on_the_right_changes_nothing_before_it():
    model = tiny_model()
    input_ids, labels, _, _ = make_batch(rows=1)
    alone = get_response_log_probs(model, input_ids, labels)["log_probs"]
    padding = torch.full((1, 4), 2)
    padded = get_response_log_probs(model, torch.cat([input_ids, padding], 1), torch.cat([labels, padding], 1))
    torch.testing.assert_close(padded["log_probs"][:, :9], alone, rtol=0, atol=1e-13)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 4), max_size=2).map(tuple),
    vocab=st.integers(1, 9),
    size=st.sampled_from([0.1, 1.0, 30.0, 1e4]),
    seed=st.integers(0, 50),
)
def test_entropy_equals_the_definition_for_logits_of_any_size(shape, vocab, size, seed):
    logits = size * torch.randn(*shape, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = logits.softmax(dim=-1)
    expected = torch.special.entr(p).sum(dim=-1)
    assert compute_entropy(logits).shape == shape
    torch.testing.assert_close(compute_entropy(logits), expected, rtol=1e-9, atol=1e-9)


def test_entropy_of_known_distributions():
    assert compute_entropy(torch.zeros(5, dtype=torch.float64)).item() == pytest.approx(math.log(5), abs=1e-15)
    assert compute_entropy(torch.tensor([1000.0, 0.0, -1000.0])).item() == 0
    impossible = torch.tensor([0.0, -float("inf"), 0.0], requires_grad=True)
    entropy = compute_entropy(impossible)
    assert entropy.item() == pytest.approx(math.log(2), abs=1e-7)
    entropy.backward()
    assert impossible.grad.isfinite().all()


def test_gradients_by_finite_differences(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS_CPU", 13)  # several blocks of rows, the last one shorter
    logits = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(6, (5,))

    def both(x):
        return module._LogProbsAndEntropy.apply(x, labels, True, False)

    assert torch.autograd.gradcheck(both, logits)
    assert torch.autograd.gradcheck(compute_entropy, logits)
    torch.testing.assert_close(both(logits), naive(logits, labels), rtol=0, atol=1e-14)


def test_half_types_are_summed_in_fp32():
    logits = (4 * torch.randn(50, 1000)).bfloat16()
    labels = torch.randint(1000, (50,))
    log_probs, entropy = module._LogProbsAndEntropy.apply(logits, labels, True, False)
    expected, expected_entropy = naive(logits.double(), labels)
    assert log_probs.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(log_probs.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), expected_entropy, rtol=1e-5, atol=1e-5)
    model = tiny_model(dtype=torch.bfloat16)
    input_ids, labels, _, _ = make_batch()
    get_response_log_probs(model, input_ids, labels)["log_probs"].sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 and p.grad.isfinite().all() for p in model.parameters())


def test_logits_become_their_gradient_in_place():
    """At the peak of the backward pass no second tensor of the logits' size exists."""
    logits = torch.randn(64, 1000, requires_grad=True) * 1.0
    storage = logits.data_ptr()
    seen = []
    logits.register_hook(lambda gradient: seen.append(gradient.data_ptr()))
    log_probs, _ = module._LogProbsAndEntropy.apply(logits, torch.zeros(64, dtype=torch.long), True, True)
    log_probs.sum().backward(retain_graph=True)
    assert seen == [storage]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        log_probs.sum().backward()


def test_refuses_what_does_not_fit():
    model = tiny_model()
    input_ids, labels, mask, _ = make_batch()
    with pytest.raises(UsageError, match=r"labels \(3, 8\)"):
        get_response_log_probs(model, input_ids, labels[:, 1:])
    with pytest.raises(UsageError, match=r"response_mask \(2, 9\)"):
        get_response_log_probs(model, input_ids, labels, response_mask=mask[1:])
    with pytest.raises(UsageError, match="chunk_tokens is 0"):
        get_response_log_probs(model, input_ids, labels, chunk_tokens=0)


class LargestTensor(TorchDispatchMode):
    """The elements of the largest floating-point tensor that any operator makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.largest = max(self.largest, tensor.numel())
        return result


def test_with_chunks_the_logits_never_exist_as_a_whole():
    model = tiny_model(tie_word_embeddings=True)
    input_ids, labels, _, _ = make_batch(rows=8, seq=50)
    largest = {}
    for chunk_tokens in (None, 40):
        with LargestTensor() as mode:
            scored = get_response_log_probs(model, input_ids, labels, True, chunk_tokens=chunk_tokens)
            scored["log_probs"].sum().backward()
        largest[chunk_tokens] = mode.largest
    assert largest[None] == 400 * VOCAB
    # The weights of the head are (320, 32), the attention's scores (8, 4, 50, 50), the widest layer (8, 50, 48).
    assert largest[40] <= max(40 * VOCAB, VOCAB * 32, 8 * 4 * 50 * 50) < 400 * VOCAB / 1.5
