"""Advantages against the definition's double sum; token rewards, value loss and KL control against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.ppo.advantages import explained_variance, generalized_advantages, whiten
from cs336_alignment.ppo.kl_control import adapted_coefficient
from cs336_alignment.ppo.losses import clipped_value_loss, token_rewards

SHARE = st.floats(0, 1)


@st.composite
def responses(draw):
    """Rewards and values of a batch, with a mask of one stretch of at least one token in each row."""
    batch, tokens = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    number = st.floats(-5, 5, allow_subnormal=False)
    rewards, values = (
        torch.tensor(draw(st.lists(number, min_size=batch * tokens, max_size=batch * tokens)), dtype=torch.float64)
        for _ in range(2)
    )
    mask = torch.zeros(batch, tokens, dtype=torch.bool)
    for row in mask:
        start = draw(st.integers(0, tokens - 1))
        row[start : draw(st.integers(start + 1, tokens))] = True
    return rewards.view(batch, tokens), values.view(batch, tokens), mask


@settings(deadline=None, derandomize=True, max_examples=100)
@given(example=responses(), gamma=SHARE, lam=SHARE)
def test_advantages_are_the_discounted_sum_of_the_residuals(example, gamma, lam):
    rewards, values, mask = example
    advantages, returns = generalized_advantages(rewards, values, mask, gamma, lam)
    for row in range(len(mask)):
        places = [place for place in range(mask.shape[1]) if mask[row, place]]
        reward, value = rewards[row, places].tolist(), [*values[row, places].tolist(), 0.0]
        residual = [reward[t] + gamma * value[t + 1] - value[t] for t in range(len(reward))]
        for t, place in enumerate(places):
            expected = sum((gamma * lam) ** (k - t) * residual[k] for k in range(t, len(reward)))
            assert advantages[row, place].item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
            assert returns[row, place].item() == pytest.approx(expected + value[t], rel=1e-9, abs=1e-9)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(example=responses(), gamma=SHARE)
def test_lambda_1_gives_the_return_and_lambda_0_one_step(example, gamma):
    rewards, values, mask = example
    _, returns = generalized_advantages(rewards, values, mask, gamma, lam=1.0)
    one_step, _ = generalized_advantages(rewards, values, mask, gamma, lam=0.0)
    for row in range(len(mask)):
        places = mask[row].nonzero().flatten().tolist()
        for t, place in enumerate(places):
            sum_of_rewards = sum(gamma**k * rewards[row, later].item() for k, later in enumerate(places[t:]))
            assert returns[row, place].item() == pytest.approx(sum_of_rewards, rel=1e-9, abs=1e-9)
            after = values[row, places[t + 1]].item() if t + 1 < len(places) else 0.0
            expected = rewards[row, place].item() + gamma * after - values[row, place].item()
            assert one_step[row, place].item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(example=responses())
def test_whitening_is_numpys_standardization(example):
    values, _, mask = example
    chosen = values[mask].numpy()
    expected = (chosen - chosen.mean()) / np.sqrt(chosen.var() + 1e-8)
    white = whiten(values, mask)
    np.testing.assert_allclose(white[mask].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert not white[~mask].any()


def test_token_rewards_by_a_loop():
    generator = torch.Generator().manual_seed(0)
    log_probs, reference = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[0, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    scores = torch.tensor([1.0, -2.0, 0.5])
    rewards = token_rewards(scores, log_probs, reference, mask, kl_coefficient=0.3)
    for row, last in enumerate([3, 0, 4]):
        for place in range(5):
            expected = -0.3 * (log_probs[row, place] - reference[row, place]).item() if mask[row, place] else 0.0
            expected += scores[row].item() if place == last else 0.0
            assert rewards[row, place].item() == pytest.approx(expected)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(value=st.floats(-3, 3), old=st.floats(-3, 3), target=st.floats(-3, 3), clip=st.floats(0.01, 2))
def test_value_loss_takes_the_worse_of_two_errors(value, old, target, clip):
    clipped = min(max(value, old - clip), old + clip)
    expected = max((value - target) ** 2, (clipped - target) ** 2) / 2
    loss = clipped_value_loss(*(torch.tensor([[x]], dtype=torch.float64) for x in (value, old, target)), clip)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_value_loss_gradient_vanishes_only_where_clipping_makes_it_worse():
    values = torch.tensor([[2.0, 2.0, 0.1]], dtype=torch.float64, requires_grad=True)
    old, returns = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 1.0]])
    loss = clipped_value_loss(values, old, returns, cliprange=0.2)
    (gradient,) = torch.autograd.grad(loss.sum(), values)
    # 2.0 against 1.0: the unclipped error 1 beats the clipped 0.64; against 0.0: 4 beats 0.04; 0.1 is not clipped.
    assert gradient.tolist() == [[1.0, 2.0, pytest.approx(-0.9)]]
    moved = torch.tensor([[0.9]], requires_grad=True)
    clipped_is_worse = clipped_value_loss(moved, torch.zeros(1, 1), torch.ones(1, 1), cliprange=0.2)
    assert clipped_is_worse.item() == pytest.approx(0.32)
    assert torch.autograd.grad(clipped_is_worse.sum(), moved)[0].item() == 0.0


def test_explained_variance_of_perfect_constant_and_no_variance():
    returns = torch.tensor([[1.0, 2.0, 3.0, 99.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask).item() == 1.0
    assert explained_variance(torch.full_like(returns, 7.0), returns, mask).item() == 0.0
    shifted = torch.tensor([[0.5, 2.0, 3.5, 0.0]])
    expected = 1 - np.var([0.5, 0.0, -0.5]) / np.var([1.0, 2.0, 3.0])
    assert explained_variance(shifted, returns, mask).item() == pytest.approx(expected)
    assert math.isnan(explained_variance(returns, torch.ones_like(returns), mask).item())


@pytest.mark.parametrize(("kl", "factor"), [(6.0, 1.0), (6.6, 1.01), (60.0, 1.02), (5.4, 0.99), (0.0, 0.98)])
def test_kl_coefficient_follows_the_divergence(kl, factor):
    assert adapted_coefficient(0.2, kl, target=6.0) == pytest.approx(0.2 * factor)
