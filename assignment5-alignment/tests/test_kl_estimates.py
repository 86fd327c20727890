"""KL estimators: their exact expectations over a small vocabulary, and those of their gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.policy_gradient.kl import KL_ESTIMATORS, estimate_kl
from cs336_basics.command_line import UsageError


def make_policies(vocab, seed):
    """Logits of the policy, and log-probabilities of the reference."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(vocab, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, torch.randn(vocab, generator=generator, dtype=torch.float64).log_softmax(0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(vocab=st.integers(2, 8), seed=st.integers(0, 100))
def test_expectations_of_values_and_gradients(vocab, seed):
    logits, reference = make_policies(vocab, seed)
    policy = logits.log_softmax(0)
    probabilities = policy.exp().detach()  # of the samples: no gradient flows through which token was drawn
    kl = (policy.exp() * (policy - reference)).sum()
    other_direction = (reference.exp() * (reference - policy)).sum()
    expected_gradient = {
        "k1": torch.zeros(vocab, dtype=torch.float64),
        "k2": torch.autograd.grad(kl, logits, retain_graph=True)[0],
        "k3": torch.autograd.grad(other_direction, logits, retain_graph=True)[0],
    }
    for estimator in KL_ESTIMATORS:
        mean = (probabilities * estimate_kl(policy, reference, estimator)).sum()
        if estimator != "k2":
            assert mean.item() == pytest.approx(kl.item(), abs=1e-13)
        (gradient,) = torch.autograd.grad(mean, logits, retain_graph=True)
        torch.testing.assert_close(gradient, expected_gradient[estimator], rtol=0, atol=1e-13)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(vocab=st.integers(2, 8), seed=st.integers(0, 100))
def test_reweighted_estimates_are_unbiased_for_samples_of_another_policy(vocab, seed):
    logits, reference = make_policies(vocab, seed)
    old = make_policies(vocab, seed + 1000)[1]
    policy = logits.log_softmax(0)
    kl = (policy.exp() * (policy - reference)).sum()
    (expected_gradient,) = torch.autograd.grad(kl, logits, retain_graph=True)
    for sampled_from in (old, policy.detach()):
        for estimator in ("k1", "k3"):
            mean = (sampled_from.exp() * estimate_kl(policy, reference, estimator, sampled_from)).sum()
            assert mean.item() == pytest.approx(kl.item(), abs=1e-13)
            (gradient,) = torch.autograd.grad(mean, logits, retain_graph=True)
            torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-13)


def test_values_by_hand_and_signs():
    policy, reference = torch.tensor([-1.0, -2.0, -3.0]).double(), torch.tensor([-2.0, -2.0, -1.0]).double()
    assert estimate_kl(policy, reference, "k1").tolist() == [1, 0, -2]
    assert estimate_kl(policy, reference, "k2").tolist() == [0.5, 0, 2]
    k3 = estimate_kl(policy, reference, "k3")
    torch.testing.assert_close(k3, torch.tensor([-1.0, 0.0, 2.0]).double().exp() - 1 + torch.tensor([1.0, 0.0, -2.0]))
    assert (k3 >= 0).all()


@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
def test_the_reference_is_a_constant_and_gradients_equal_finite_differences(estimator):
    policy = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: estimate_kl(x, reference.detach(), estimator), policy)
    estimate_kl(policy, reference, estimator).sum().backward()
    assert reference.grad is None


def test_k3_keeps_small_differences():
    policy = torch.tensor([-1.0])
    assert estimate_kl(policy, policy - 2**-12).item() == pytest.approx(2**-25, rel=0.05)


def test_refuses_unknown_estimators_and_other_shapes():
    with pytest.raises(UsageError, match="'k4'; allowed are k1, k2, k3"):
        estimate_kl(torch.zeros(2), torch.zeros(2), "k4")
    with pytest.raises(UsageError, match=r"\(3,\).*\(2,\)"):
        estimate_kl(torch.zeros(2), torch.zeros(3))
    with pytest.raises(UsageError, match=r"old_log_probs \(3,\).*\(2,\)"):
        estimate_kl(torch.zeros(2), torch.zeros(2), "k3", torch.zeros(3))
