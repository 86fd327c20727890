"""Every loss, its gradient and its aggregation against loops and closed forms in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.policy_gradient.aggregation import (
    LOSS_NORMALIZATIONS,
    aggregate_loss_across_microbatch,
    token_weights,
)
from cs336_alignment.policy_gradient.losses import (
    IMPORTANCE_REWEIGHTING_METHODS,
    LOSS_TYPES,
    compute_grpo_clip_loss,
    compute_loss_of_type,
    compute_naive_policy_gradient_loss,
    compute_policy_gradient_loss,
)
from cs336_alignment.policy_gradient.microbatch import grpo_microbatch_train_step, sft_microbatch_train_step
from cs336_basics.command_line import UsageError

LOW, HIGH = 0.2, 0.3


def make_batch(rows=4, seq=7, seed=0, spread=0.4):
    """Advantages, log-probabilities that lie apart far enough for ratios on both sides of the clip range, a mask."""
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(rows, seq, generator=generator, dtype=torch.float64)
    policy = old + spread * torch.randn(rows, seq, generator=generator, dtype=torch.float64)
    advantages = torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, seq, generator=generator) < 0.6
    mask[:, 0] = True
    return advantages, policy, old, mask


def by_hand(method, advantage, log_p, old, mask_row, t):
    """Loss, derivative by this token's log-probability, and whether it was clipped, of one token, in Python's floats.

    For gspo the derivative is that of the row's loss by this token, a response token.
    """
    if method == "none":
        return -advantage * log_p[t], -advantage, False
    ratio = math.exp(log_p[t] - old[t])
    if method == "noclip":
        return -advantage * ratio, -advantage * ratio, False
    if method == "cispo":
        weight = min(max(ratio, 1 - LOW), 1 + HIGH)
        return -weight * advantage * log_p[t], -weight * advantage, weight != ratio
    share = 1.0
    if method == "gspo":
        responses = [i for i, inside in enumerate(mask_row) if inside]
        ratio = math.prod(math.exp(log_p[i]) / math.exp(old[i]) for i in responses) ** (1 / len(responses))
        share = 1 / len(responses)
    # Clipping silences a token only where the ratio has already moved the way the advantage pushes it.
    clipped = ratio > 1 + HIGH if advantage > 0 else ratio < 1 - LOW
    bound = 1 + HIGH if advantage > 0 else 1 - LOW
    return -advantage * (bound if clipped else ratio), 0.0 if clipped else -advantage * ratio * share, clipped


@pytest.mark.parametrize("method", IMPORTANCE_REWEIGHTING_METHODS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(rows=st.integers(1, 4), seq=st.integers(1, 7), seed=st.integers(0, 100))
def test_values_gradients_and_clipping_equal_closed_forms(method, rows, seq, seed):
    advantages, policy, old, mask = make_batch(rows, seq, seed)
    policy.requires_grad_()
    loss, metadata = compute_policy_gradient_loss(advantages, policy, method, old, LOW, mask, cliprange_high=HIGH)
    assert loss.shape == (rows, seq)
    upstream = torch.rand(rows, seq, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((loss * upstream).sum(), policy)
    clipped = []
    for i in range(rows):
        row = [advantages[i].item(), policy[i].tolist(), old[i].tolist(), mask[i].tolist()]
        for t in range(seq):
            value, derivative, was_clipped = by_hand(method, *row, t)
            assert loss[i, t].item() == pytest.approx(value, abs=1e-12)
            if method == "gspo":  # every token of the row has the row's loss, on which every response token acts
                derivative *= upstream[i].sum().item() if mask[i, t] else 0
            else:
                derivative *= upstream[i, t].item()
            assert gradient[i, t].item() == pytest.approx(derivative, abs=1e-12)
            if mask[i, t]:
                clipped.append(was_clipped)
            if metadata:
                assert metadata["clipped"][i, t].item() == was_clipped
    if method in ("none", "noclip"):
        assert metadata == {}
    else:
        assert metadata["clip_fraction"].item() == pytest.approx(sum(clipped) / len(clipped), abs=1e-6)


def test_the_cases_above_clip_on_both_sides():
    advantages, policy, old, _ = make_batch(20, 20)
    _, metadata = compute_grpo_clip_loss(advantages, policy, old, LOW, HIGH)
    for sign in (1, -1):
        assert 0.1 < metadata["clipped"][advantages[:, 0] * sign > 0].double().mean() < 0.9


@pytest.mark.parametrize("method", IMPORTANCE_REWEIGHTING_METHODS)
def test_gradients_by_finite_differences(method):
    advantages, policy, old, mask = make_batch()
    if method == "cispo":  # its weight is a constant to autograd, so differences would have to leave it alone
        ratio = (policy - old).exp().clamp(1 - LOW, 1 + HIGH)
        loss, _ = compute_policy_gradient_loss(advantages, policy.requires_grad_(), method, old, LOW, mask,
                                               cliprange_high=HIGH)  # fmt: skip
        (gradient,) = torch.autograd.grad(loss.sum(), policy)
        torch.testing.assert_close(gradient, -ratio.detach() * advantages, rtol=0, atol=1e-14)
        return

    def loss_of(x):
        return compute_policy_gradient_loss(advantages, x, method, old, LOW, mask, cliprange_high=HIGH)[0]

    assert torch.autograd.gradcheck(loss_of, policy.requires_grad_())


@pytest.mark.parametrize("method", ["noclip", "grpo", "gspo", "cispo"])
def test_on_fresh_rollouts_the_gradient_is_that_of_reinforce(method):
    advantages, policy, _, mask = make_batch()
    policy.requires_grad_()
    gradients = []
    for name in (method, "none"):
        loss, metadata = compute_policy_gradient_loss(advantages, policy, name, policy.detach(), LOW, mask)
        gradients += torch.autograd.grad(aggregate_loss_across_microbatch(loss, mask), policy)
        assert not metadata.get("clipped", torch.zeros(1)).any()
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


def test_advantages_per_row_or_per_token_in_any_shape():
    advantages, policy, old, _ = make_batch()
    expected, _ = compute_grpo_clip_loss(advantages, policy, old, LOW)
    for shape in (advantages[:, 0], advantages.expand_as(policy)):
        assert torch.equal(compute_grpo_clip_loss(shape, policy, old, LOW)[0], expected)
    advantages.requires_grad_()
    assert not compute_naive_policy_gradient_loss(advantages, policy).requires_grad


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_names_of_2025(loss_type):
    advantages, policy, old, _ = make_batch()
    rewards = advantages.square()
    loss, metadata = compute_loss_of_type(policy, loss_type, rewards, advantages, old, LOW)
    ratio = (policy - old).exp()
    expected = {
        "no_baseline": -rewards * policy,
        "reinforce_with_baseline": -advantages * policy,
        "grpo_no_clip": -advantages * ratio,
        "grpo_clip": torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - LOW, 1 + LOW)),
    }
    torch.testing.assert_close(loss, expected[loss_type], rtol=0, atol=1e-14)
    assert set(metadata) == ({"clipped", "clip_fraction"} if loss_type == "grpo_clip" else set())


def by_loops(loss, mask, normalization, constant):
    rows = [
        [x for x, inside in zip(*pair, strict=True) if inside]
        for pair in zip(loss.tolist(), mask.tolist(), strict=True)
    ]
    if normalization == "sequence":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    tokens = [x for row in rows for x in row]
    return sum(tokens) / (len(tokens) if normalization == "token" else constant)


@pytest.mark.parametrize("normalization", LOSS_NORMALIZATIONS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(rows=st.integers(1, 6), seq=st.integers(1, 6), seed=st.integers(0, 50), cut=st.integers(0, 6))
def test_aggregation_and_its_microbatches_equal_loops(normalization, rows, seq, seed, cut):
    _, loss, _, mask = make_batch(rows, seq, seed)
    constant = 11
    whole = aggregate_loss_across_microbatch(loss, mask, normalization, constant)
    assert whole.item() == pytest.approx(by_loops(loss, mask, normalization, constant), abs=1e-13)
    parts = [
        (loss[part] * token_weights(mask[part], rows, mask.sum(), normalization, constant, loss.dtype)).sum()
        for part in (slice(0, cut), slice(cut, rows))
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-13)


def test_a_row_without_response_has_no_weight():
    mask = torch.tensor([[False, False], [True, True]])
    assert token_weights(mask, 2, 2).tolist() == [[0, 0], [0.25, 0.25]]
    assert aggregate_loss_across_microbatch(torch.ones(2, 2), mask).isnan()
    assert aggregate_loss_across_microbatch(torch.ones(2, 2), mask, "constant", 4) == 0.5


@pytest.mark.parametrize("steps", [1, 3])
def test_sft_microbatch(steps):
    _, policy, _, mask = make_batch()
    policy.requires_grad_()
    for constant in (1.0, 5, None):
        policy.grad = None
        loss, metadata = sft_microbatch_train_step(policy, mask, steps, constant)
        divisor = (constant or 1) * steps * len(policy)
        sums = [x for x, inside in zip(policy.flatten().tolist(), mask.flatten().tolist(), strict=True) if inside]
        assert loss.item() == pytest.approx(-sum(sums) / divisor, abs=1e-13)
        assert not loss.requires_grad
        torch.testing.assert_close(policy.grad, -mask.double() / divisor, rtol=0, atol=1e-15)
        assert metadata["token_nll"].item() == pytest.approx(-sum(sums) / len(sums), abs=1e-13)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_grpo_microbatch(loss_type):
    advantages, policy, old, mask = make_batch()
    policy.requires_grad_()
    rewards = advantages.square()
    per_token, _ = compute_loss_of_type(policy, loss_type, rewards, advantages, old, LOW)
    expected = by_loops(per_token, mask, "sequence", None) / 3
    weights = mask.double() / mask.sum(dim=1, keepdim=True) / len(mask) / 3
    (gradient,) = torch.autograd.grad((per_token * weights).sum(), policy)
    loss, metadata = grpo_microbatch_train_step(policy, mask, 3, loss_type, rewards, advantages, old, LOW)
    assert loss.item() == pytest.approx(expected, abs=1e-13)
    assert abs(loss.item()) > 1e-3
    torch.testing.assert_close(policy.grad, gradient, rtol=0, atol=1e-15)
    if loss_type == "grpo_clip":
        clipped = metadata["clipped"][mask].double().mean().item()
        assert metadata["clip_fraction"].item() == pytest.approx(clipped, abs=1e-6)


def test_microbatches_add_up_to_the_batch():
    advantages, policy, old, mask = make_batch(rows=6)
    gradients = []
    for parts in (1, 3):
        policy = policy.detach().requires_grad_()
        total = 0
        for rows in torch.arange(6).chunk(parts):
            loss, _ = grpo_microbatch_train_step(
                policy[rows], mask[rows], parts, "grpo_clip", None, advantages[rows], old[rows], LOW
            )
            total += loss
        gradients.append((total, policy.grad))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


ADVANTAGES, POLICY, OLD, MASK = make_batch()


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (compute_policy_gradient_loss, (ADVANTAGES, POLICY, "ppo"), "method is 'ppo'; allowed are none, noclip"),
        (compute_policy_gradient_loss, (ADVANTAGES, POLICY, "noclip"), "old_log_probs is None"),
        (compute_policy_gradient_loss, (ADVANTAGES, POLICY, "grpo", OLD), "cliprange is None"),
        (compute_policy_gradient_loss, (ADVANTAGES, POLICY, "grpo", OLD, -0.1), "cliprange is -0.1"),
        (compute_policy_gradient_loss, (ADVANTAGES, POLICY, "gspo", OLD, 0.2), "response_mask is None"),
        (compute_policy_gradient_loss, (ADVANTAGES, POLICY, "grpo", OLD[:, 1:], 0.2), r"old_log_probs \(4, 6\)"),
        (compute_policy_gradient_loss, (ADVANTAGES[1:], POLICY), r"shape \(3, 1\) do not fit .* \(4, 7\)"),
        (compute_loss_of_type, (POLICY, "ppo"), "loss_type is 'ppo'; allowed are no_baseline"),
        (compute_loss_of_type, (POLICY, "no_baseline", None, ADVANTAGES), "raw_rewards is None"),
        (compute_loss_of_type, (POLICY, "grpo_clip", ADVANTAGES), "advantages is None"),
        (aggregate_loss_across_microbatch, (POLICY, MASK, "mean"), "loss_normalization is 'mean'"),
        (aggregate_loss_across_microbatch, (POLICY, MASK, "constant"), "normalization_constant is None"),
        (aggregate_loss_across_microbatch, (POLICY, MASK, "constant", 0), "normalization_constant is 0"),
        (sft_microbatch_train_step, (POLICY, MASK, 0), "gradient_accumulation_steps is 0"),
    ],
)
def test_refuses_what_has_no_meaning(function, arguments, message):
    with pytest.raises(UsageError, match=message):
        function(*arguments)
