"""Whole updates of a two-layer model in float64 against a derivation from logits and a hand-written AdamW step."""

import copy
import math

import pytest
import torch

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.policy_gradient.advantages import compute_group_normalized_rewards
from cs336_alignment.policy_gradient.batch import PolicyGradientLoss, RolloutBatch
from cs336_alignment.policy_gradient.step import grpo_train_step, policy_gradient_step
from cs336_alignment.tokenization import tokenize_prompt_and_output
from cs336_basics.command_line import UsageError
from cs336_basics.optimizer import AdamW

from .tiny_models import tiny_model, tiny_tokenizer

PROMPTS = ["Question: what is 12 + 34? ", "Some words, ", "a"]
RESPONSES = ["46", "The answer is 46.", " more", "so that", "x", " <think> forty-six </think>", "", "merges"]
GROUP = 2
REWARDS = dict(zip(RESPONSES, [1, 0, 0.5, 0.25, 1, 1, 0, 0.75], strict=True))
BETAS, EPS, DECAY, LR = (0.9, 0.95), 1e-8, 0.1, 1e-3
LOW, HIGH = 0.2, 0.3


def reward_fn(response, truth):
    return {"reward": REWARDS[response], "format_reward": 1.0, "answer_reward": float(response == truth)}


def rollouts(responses=RESPONSES[:6]):
    return {
        "repeated_prompts": [PROMPTS[i // GROUP] for i in range(len(responses))],
        "rollout_responses": responses,
        "repeated_ground_truths": ["46"] * len(responses),
        "group_size": GROUP,
        "reward_fn": reward_fn,
        "tokenizer": tiny_tokenizer(),
    }


def make_optimizer(model):
    return AdamW(model.parameters(), lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)


def run(model, steps=1, max_grad_norm=None, responses=RESPONSES[:6], **settings):
    model = copy.deepcopy(model)
    loss, metadata = grpo_train_step(
        model=model, optimizer=make_optimizer(model), gradient_accumulation_steps=steps, max_grad_norm=max_grad_norm,
        **rollouts(responses), **settings,
    )  # fmt: skip
    return model, loss, metadata


def log_probs_of(model, responses=RESPONSES[:6]):
    """(rows, seq), from the logits of each row alone, and the mask."""
    batch = tokenize_prompt_and_output(rollouts(responses)["repeated_prompts"], responses, tiny_tokenizer())
    log_p = model(batch["input_ids"]).logits.log_softmax(-1)
    return log_p.gather(-1, batch["labels"].unsqueeze(-1)).squeeze(-1), batch["response_mask"], log_p


def by_hand(model, method="none", normalization="sequence", old=None, reference=None, kl=0.0, constant=None):
    """Loss and gradients from the formulas, in one piece; advantages as GRPO's."""
    log_p, mask, _ = log_probs_of(model)
    rewards = torch.tensor([REWARDS[response] for response in RESPONSES[:6]])
    # Half a group's difference over the sample standard deviation of two numbers, which is that difference over the
    # root of 2: so each group has the advantages +-1 / sqrt(2), but for its last digits.
    advantages = compute_group_normalized_rewards(rewards, GROUP)[0]
    torch.testing.assert_close(advantages, torch.tensor([1, -1, 1, -1, 0, 0]) / 2**0.5, rtol=0, atol=1e-5)
    rows = []
    for i, advantage in enumerate(advantages):
        policy, before = log_p[i][mask[i]], None if old is None else old[i][mask[i]]
        if method == "none":
            tokens = -advantage * policy
        elif method == "gspo":
            ratio = torch.exp((policy - before).mean())
            tokens = -torch.min(ratio * advantage, ratio.clamp(1 - LOW, 1 + HIGH) * advantage).repeat(len(policy))
        else:
            ratio = torch.exp(policy - before)
            bounded = ratio.clamp(1 - LOW, 1 + HIGH)
            tokens = {
                "noclip": -advantage * ratio,
                "grpo": torch.max(-advantage * ratio, -advantage * bounded),
                "cispo": -advantage * bounded.detach() * policy,
            }[method]
        if kl:
            difference = reference[i][mask[i]] - policy
            tokens = tokens + kl * (torch.exp(difference) - difference - 1)
        rows.append(tokens)
    loss = {
        "sequence": lambda: torch.stack([row.mean() for row in rows]).mean(),
        "constant": lambda: torch.cat(rows).sum() / constant,
        "token": lambda: torch.cat(rows).mean(),
    }[normalization]()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return loss.detach(), gradients


def after_adamw(model, gradients, max_norm=None):
    """The parameters after the first AdamW step: both bias-corrected moments are the gradient and its square."""
    norm = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients))
    factor = 1.0 if max_norm is None else min(1.0, max_norm / (norm + 1e-6))
    updated = [
        parameter.detach() * (1 - LR * DECAY) - LR * (factor * gradient) / ((factor * gradient).abs() + EPS)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True)
    ]
    return norm, updated


def assert_same(actual, expected, tolerance=1e-12):
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def old(model):
    """Log-probabilities of a policy that differs enough for clipping on both sides."""
    log_p, mask, _ = log_probs_of(model)
    noise = 0.4 * torch.randn(log_p.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.where(mask, log_p.detach() + noise, -1e9)  # what stands outside the responses must not count


@pytest.mark.parametrize("method", ["none", "noclip", "grpo", "gspo", "cispo"])
@pytest.mark.parametrize("normalization", ["sequence", "constant", "token"])
def test_update_equals_formulas_and_hand_written_adamw(model, old, method, normalization):
    settings = {"normalization_constant": 50} if normalization == "constant" else {}
    if method != "none":
        settings["old_log_probs"] = old
    if method in ("grpo", "gspo", "cispo"):
        settings |= {"cliprange": LOW, "cliprange_high": HIGH}
    updated, loss, metadata = run(
        model, importance_reweighting_method=method, loss_normalization=normalization, **settings
    )
    expected_loss, gradients = by_hand(model, method, normalization, old, constant=50)
    norm, expected = after_adamw(model, gradients)
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-12)
    assert abs(loss.item()) > 1e-3
    assert metadata["loss"] is loss
    assert metadata["grad_norm"].item() == pytest.approx(norm, rel=1e-12)
    assert_same(updated.parameters(), expected)
    assert any((a - b).abs().max() > LR / 2 for a, b in zip(updated.parameters(), model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in updated.parameters())
    assert (metadata["clip_fraction"] > 0) == (method in ("grpo", "gspo", "cispo"))


@pytest.mark.parametrize("normalization", ["sequence", "constant", "token"])
@pytest.mark.parametrize("steps", [2, 3, 4, 6])
def test_microbatches_equal_the_whole_batch_even_or_not(model, old, normalization, steps):
    settings = {
        "importance_reweighting_method": "grpo", "old_log_probs": old, "cliprange": LOW, "max_grad_norm": 0.5,
        "loss_normalization": normalization, "normalization_constant": 50, "kl_coefficient": 0.3,
        "reference_log_probs": old.clamp(min=-20) + 0.1,
    }  # fmt: skip
    whole, loss, metadata = run(model, **settings)
    parts, loss_of_parts, metadata_of_parts = run(model, steps, **settings)
    assert loss_of_parts.item() == pytest.approx(loss.item(), abs=1e-12)
    assert_same(parts.parameters(), whole.parameters())
    assert set(metadata) == set(metadata_of_parts)
    for name, value in metadata.items():
        assert float(metadata_of_parts[name]) == pytest.approx(float(value), abs=1e-6)


def test_clipping_the_gradient_norm(model):
    _, gradients = by_hand(model)
    norm, _ = after_adamw(model, gradients)
    limit = norm / 1e9  # so small that AdamW's eps matters
    updated, _, metadata = run(model, max_grad_norm=limit)
    assert metadata["grad_norm"].item() == pytest.approx(norm, rel=1e-12)
    # The limit lies under the 1e-6 that clipping adds to the norm, so the factor is taken from the formula.
    assert_same(updated.parameters(), after_adamw(model, gradients, limit)[1], 1e-10)
    unclipped, _, _ = run(model, max_grad_norm=2 * norm)
    assert_same(unclipped.parameters(), run(model)[0].parameters(), 0)


def test_kl_term(model, old):
    reference = old.clamp(min=-20)
    updated, loss, metadata = run(model, kl_coefficient=0.7, reference_log_probs=reference)
    expected_loss, gradients = by_hand(model, reference=reference, kl=0.7)
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-12)
    assert_same(updated.parameters(), after_adamw(model, gradients)[1])
    log_p, mask, _ = log_probs_of(model)
    d = (reference - log_p)[mask]
    assert metadata["kl"].item() == pytest.approx((d.exp() - d - 1).mean().item(), abs=1e-12)
    without, _, only_measured = run(model, reference_log_probs=reference)
    assert only_measured["kl"] == metadata["kl"]
    assert_same(without.parameters(), run(model)[0].parameters(), 0)


def test_reweighted_kl_term(model, old):
    reference = old.clamp(min=-20) + 0.1
    settings = {"kl_coefficient": 0.7, "reference_log_probs": reference, "old_log_probs": old}
    updated, loss, _ = run(model, kl_reweighting=True, **settings)
    log_p, mask, _ = log_probs_of(model)
    difference = reference - log_p
    kl = ((log_p - old).clamp(max=50).exp() * (difference.clamp(max=50).exp() - difference - 1)).where(mask, 0)
    reinforce, gradients = by_hand(model)
    extra = 0.7 * (kl.sum(1) / mask.sum(1)).mean()
    assert loss.item() == pytest.approx((reinforce + extra).item(), abs=1e-12)
    more = torch.autograd.grad(extra, list(model.parameters()))
    summed = [one + other for one, other in zip(gradients, more, strict=True)]
    # AdamW divides by the gradient, so where it is small, rounding weighs more.
    assert_same(updated.parameters(), after_adamw(model, summed)[1], 1e-9)
    with pytest.raises(UsageError, match="kl_reweighting needs old_log_probs"):
        run(model, kl_reweighting=True, kl_coefficient=0.7, reference_log_probs=reference)


@pytest.mark.parametrize("method", ["noclip", "grpo", "gspo", "cispo"])
def test_the_first_step_on_fresh_rollouts_is_reinforce(model, method):
    current = log_probs_of(model)[0].detach()
    updated, _, metadata = run(model, importance_reweighting_method=method, old_log_probs=current, cliprange=LOW)
    assert metadata["clip_fraction"] == 0
    # AdamW divides by the gradient, which blows up rounding where it is near 0; the tolerance is that of the ratio.
    assert_same(updated.parameters(), run(model)[0].parameters(), 1e-7)


def test_a_batch_of_the_policy_as_it_is_needs_no_old_log_probs(model):
    tokens = tokenize_prompt_and_output(rollouts()["repeated_prompts"], RESPONSES[:6], tiny_tokenizer())
    batch = RolloutBatch(**tokens, advantages=torch.tensor([1.0, -1, 2, 0, 0.5, -2]).double())
    shares = []
    for method in ("grpo", "none"):
        loss, _ = PolicyGradientLoss(method, cliprange=LOW, on_policy=True).share(model, batch, 6, batch.num_tokens)
        shares.append(torch.autograd.grad(loss, list(model.parameters())))
    assert_same(*shares)


def test_metadata(model):
    _, _, metadata = run(model)
    _, mask, all_log_p = log_probs_of(model)
    entropy = -(all_log_p.exp() * all_log_p).sum(-1)
    assert metadata["token_entropy"].item() == pytest.approx(entropy[mask].mean().item(), abs=1e-12)
    assert metadata["reward_mean"] == pytest.approx(sum(list(REWARDS.values())[:6]) / 6)
    assert metadata["format_reward_mean"] == 1
    assert metadata["answer_reward_mean"] == pytest.approx(1 / 6)
    assert metadata["clip_fraction"] == 0
    assert metadata["informative_groups"] == pytest.approx(2 / 3)
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in metadata.values())


def test_chunks_of_the_head_change_nothing(model):
    for tokens in (1, 5, 1000):
        assert_same(run(model, 2, chunk_tokens=tokens)[0].parameters(), run(model, 2)[0].parameters())


def test_an_empty_response_counts_as_a_sequence_but_has_no_tokens(model):
    responses = RESPONSES[6:]
    updated, loss, metadata = run(model, 2, responses=responses, advantage_normalizer="none")
    log_p, mask, _ = log_probs_of(model, responses)
    assert mask.any(dim=1).tolist() == [False, True]
    expected = -0.375 * log_p[1][mask[1]].mean() / 2
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    assert_same(updated.parameters(), after_adamw(model, gradients)[1])
    assert math.isfinite(metadata["token_entropy"])
    current = log_p.detach()
    same, _, _ = run(model, 1, None, responses, advantage_normalizer="none", importance_reweighting_method="gspo",
                     old_log_probs=current, cliprange=LOW)  # fmt: skip
    assert_same(same.parameters(), updated.parameters(), 1e-7)


def test_gradients_left_from_before_do_not_count(model):
    dirty = copy.deepcopy(model)
    for parameter in dirty.parameters():
        parameter.grad = torch.ones_like(parameter)
    grpo_train_step(
        model=dirty, optimizer=make_optimizer(dirty), gradient_accumulation_steps=1, max_grad_norm=None, **rollouts()
    )
    assert_same(dirty.parameters(), run(model)[0].parameters(), 0)


def test_frozen_parameters_stay_and_the_mode_stays(model):
    frozen = copy.deepcopy(model).train()
    frozen.model.embed_tokens.weight.requires_grad_(False)
    before = frozen.model.embed_tokens.weight.clone()
    trained = [parameter for parameter in frozen.parameters() if parameter.requires_grad]
    optimizer = AdamW(trained[1:], lr=LR)  # one more that has a gradient and is not the optimizer's
    _, metadata = grpo_train_step(
        model=frozen, optimizer=optimizer, gradient_accumulation_steps=2, max_grad_norm=1.0, **rollouts()
    )
    assert torch.equal(frozen.model.embed_tokens.weight, before)
    assert frozen.training
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert metadata["grad_norm"] > 0


def test_columns_behind_the_last_response_are_not_computed(model):
    """A microbatch of short rows is as narrow as they are."""
    widths = []
    spied = copy.deepcopy(model)
    spied.model.register_forward_pre_hook(lambda module, arguments: widths.append(arguments[0].shape[1]))
    run(spied, 3)
    lengths = [
        len(tiny_tokenizer()(prompt, add_special_tokens=False)["input_ids"])
        + len(tiny_tokenizer()(response, add_special_tokens=False)["input_ids"])
        for prompt, response in zip(rollouts()["repeated_prompts"], RESPONSES[:6], strict=True)
    ]
    assert widths == [max(lengths[i : i + 2]) - 1 for i in (0, 2, 4)]
    assert len(set(widths)) > 1


def test_a_batch_takes_a_mask_of_numbers(model):
    _, mask, _ = log_probs_of(model)
    tokens = {"input_ids": torch.zeros_like(mask).long(), "labels": torch.zeros_like(mask).long()}
    batch = RolloutBatch(**tokens, response_mask=mask.long(), advantages=torch.ones(len(mask)))
    assert torch.equal(batch.response_mask, mask)


def test_a_step_from_a_batch_of_tensors(model):
    tokens = tokenize_prompt_and_output(rollouts()["repeated_prompts"], RESPONSES[:6], tiny_tokenizer())
    advantages = torch.tensor([1.0, -1, 2, 0, 0.5, -2]).double()
    batch = RolloutBatch(**tokens, advantages=advantages)
    assert len(batch) == 6
    assert batch.num_tokens == tokens["response_mask"].sum()
    updated = copy.deepcopy(model)
    loss, metadata = policy_gradient_step(updated, make_optimizer(updated), batch, PolicyGradientLoss())
    scored = get_response_log_probs(model, tokens["input_ids"], tokens["labels"])["log_probs"]
    mask = tokens["response_mask"]
    expected = (-advantages.unsqueeze(1) * scored * mask).sum(1) / mask.sum(1)
    assert loss.item() == pytest.approx(expected.mean().item(), abs=1e-12)
    gradients = torch.autograd.grad(expected.mean(), list(model.parameters()))
    assert_same(updated.parameters(), after_adamw(model, gradients)[1])
    assert set(metadata) == {"loss", "grad_norm", "token_entropy", "clip_fraction"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "gradient_accumulation_steps is 0; allowed are 1 to 6"),
        ({"steps": 7}, "gradient_accumulation_steps is 7"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
        ({"importance_reweighting_method": "grpo", "cliprange": 0.2}, "old_log_probs is None"),
        ({"loss_normalization": "constant"}, "normalization_constant is None"),
        ({"kl_coefficient": 0.1}, "needs reference_log_probs"),
        ({"old_log_probs": torch.zeros(6, 3)}, r"old_log_probs has the shape \(6, 3\)"),
        ({"responses": ["", ""]}, "no response has any token"),
        ({"responses": RESPONSES[:5]}, "do not form groups of 2"),
    ],
)
def test_refuses_without_touching_the_model(model, settings, message):
    untouched = copy.deepcopy(model)
    with pytest.raises(UsageError, match=message):
        run(untouched, **settings)
    assert_same(untouched.parameters(), model.parameters(), 0)
