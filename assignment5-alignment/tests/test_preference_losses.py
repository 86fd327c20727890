"""DPO, IPO and Bradley-Terry: values and gradients against the papers' formulas, evaluated in another way."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.preference.dpo_loss import preference_loss
from cs336_alignment.preference.reward_loss import bradley_terry_loss
from cs336_basics.command_line import UsageError

LOG_PROBABILITY = st.floats(-60, 0)
FOUR = st.lists(st.tuples(*[LOG_PROBABILITY] * 4), min_size=1, max_size=5)
KINDS = [("dpo", 0.0), ("dpo", 0.1), ("dpo", 0.4), ("ipo", 0.0)]


def _columns(rows):
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]


def _by_probabilities(chosen, rejected, ref_chosen, ref_rejected, beta, kind, smoothing):
    """The loss of one pair by Python's floats: DPO through the two odds, each to the power beta."""
    if kind == "ipo":
        difference = math.log(math.exp(chosen - rejected) / math.exp(ref_chosen - ref_rejected))
        return (difference - 0.5 / beta) ** 2
    preferred = math.exp(chosen - ref_chosen) ** beta
    other = math.exp(rejected - ref_rejected) ** beta
    probability = preferred / (preferred + other)
    return -(1 - smoothing) * math.log(probability) - smoothing * math.log(other / (preferred + other))


@pytest.mark.parametrize(("kind", "smoothing"), KINDS)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=FOUR, beta=st.floats(0.01, 2))
def test_each_loss_is_that_of_its_paper(kind, smoothing, rows, beta):
    outcome = preference_loss(*_columns(rows), beta=beta, kind=kind, label_smoothing=smoothing)
    expected = [_by_probabilities(*row, beta, kind, smoothing) for row in rows]
    assert outcome.loss.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    rewards = [(beta * (row[0] - row[2]), beta * (row[1] - row[3])) for row in rows]
    assert outcome.chosen_reward.tolist() == pytest.approx([chosen for chosen, _ in rewards])
    assert outcome.rejected_reward.tolist() == pytest.approx([rejected for _, rejected in rewards])


@pytest.mark.parametrize(("kind", "smoothing"), KINDS)
def test_gradients_are_those_of_the_papers(kind, smoothing):
    """DPO's is beta times how wrong the implicit reward is (equation 7's gradient, section 4 of the paper)."""
    generator = torch.Generator().manual_seed(0)
    policy = [torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)]
    reference = [torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)]
    beta = 0.3
    outcome = preference_loss(*policy, *reference, beta=beta, kind=kind, label_smoothing=smoothing)
    assert not outcome.chosen_reward.requires_grad
    assert not outcome.rejected_reward.requires_grad
    chosen, rejected = torch.autograd.grad(outcome.loss.sum(), policy)
    with torch.no_grad():
        difference = (policy[0] - reference[0]) - (policy[1] - reference[1])
        wrong = 1 / (1 + torch.exp(beta * difference))
        dpo = -beta * ((1 - smoothing) * wrong - smoothing * (1 - wrong))
        expected = 2 * (difference - 1 / (2 * beta)) if kind == "ipo" else dpo
    torch.testing.assert_close(chosen, expected)
    torch.testing.assert_close(rejected, -expected)

    def loss(*inputs):
        return preference_loss(*inputs, beta=beta, kind=kind, label_smoothing=smoothing).loss

    assert torch.autograd.gradcheck(loss, (*policy, *reference))  # finite differences


def test_loss_of_equal_models_is_log_2_and_extremes_stay_finite():
    same = torch.tensor([-3.0, -500.0])
    assert preference_loss(same, same, same, same, beta=0.1).loss.tolist() == pytest.approx([math.log(2)] * 2)
    far = torch.tensor([1e6], requires_grad=True)
    zero = torch.zeros(1)
    loss = preference_loss(-far, far, zero, zero, beta=0.1).loss
    loss.sum().backward()
    assert loss.item() == pytest.approx(2e5)
    assert far.grad.item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"beta": 0.0}, "beta is 0.0"),
        ({"beta": math.inf}, "beta is inf"),
        ({"beta": 0.1, "kind": "hinge"}, "'hinge'"),
        ({"beta": 0.1, "label_smoothing": 0.5}, "label_smoothing is 0.5"),
        ({"beta": 0.1, "kind": "ipo", "label_smoothing": 0.1}, "label_smoothing is 0.1"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings_, named):
    zeros = torch.zeros(1)
    with pytest.raises(UsageError, match=named):
        preference_loss(zeros, zeros, zeros, zeros, **settings_)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=5), weight=st.floats(0, 1))
def test_bradley_terry_loss_is_the_odds_of_the_scores(rows, weight):
    expected = [
        -math.log(math.exp(chosen) / (math.exp(chosen) + math.exp(rejected))) + weight * (chosen + rejected) ** 2
        for chosen, rejected in rows
    ]
    losses = bradley_terry_loss(*_columns(rows), centering=weight)
    assert losses.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_bradley_terry_gradients_match_finite_differences():
    scores = [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in ([0.3, -2.0], [1.0, -2.0])]
    assert torch.autograd.gradcheck(lambda *inputs: bradley_terry_loss(*inputs, centering=0.2), scores)
    chosen, rejected = torch.autograd.grad(bradley_terry_loss(*scores).sum(), scores)
    torch.testing.assert_close(chosen, -torch.sigmoid(scores[1] - scores[0]).detach())
    torch.testing.assert_close(rejected, -chosen)
