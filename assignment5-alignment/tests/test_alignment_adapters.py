"""Every adapter of both editions, called with the keywords of the course's suites."""

import copy
import inspect
import json

import pytest
import torch

from cs336_basics.command_line import UsageError
from cs336_basics.optimizer import AdamW

from . import adapters
from .tiny_models import tiny_model, tiny_tokenizer

CONTRACT = {
    "run_tokenize_prompt_and_output": "prompt_strs output_strs tokenizer",
    "run_compute_rollout_rewards": "reward_fn rollout_responses repeated_ground_truths",
    "run_compute_entropy": "logits",
    "run_get_response_log_probs": "model input_ids labels return_token_entropy",
    "run_compute_naive_policy_gradient_loss": "raw_rewards_or_advantages policy_log_probs",
    "run_compute_grpo_clip_loss": "advantages policy_log_probs old_log_probs cliprange",
    "run_aggregate_loss_across_microbatch": (
        "per_token_policy_gradient_loss mask loss_normalization normalization_constant"
    ),
    "run_masked_mean": "tensor mask dim",
    "run_masked_normalize": "tensor mask dim normalize_constant",
    "run_sft_microbatch_train_step": ("policy_log_probs response_mask gradient_accumulation_steps normalize_constant"),
    "run_grpo_microbatch_train_step": (
        "policy_log_probs response_mask gradient_accumulation_steps loss_type raw_rewards advantages old_log_probs "
        "cliprange"
    ),
    "run_grpo_train_step": (
        "model tokenizer optimizer gradient_accumulation_steps max_grad_norm reward_fn repeated_prompts "
        "rollout_responses repeated_ground_truths group_size baseline advantage_eps advantage_normalizer "
        "importance_reweighting_method old_log_probs cliprange loss_normalization normalization_constant"
    ),
    "get_packed_sft_dataset": "tokenizer dataset_path seq_length shuffle",
    "run_iterate_batches": "dataset batch_size shuffle",
    "run_parse_mmlu_response": "mmlu_example model_output",
    "run_parse_gsm8k_response": "model_output",
    "run_compute_per_instance_dpo_loss": "lm lm_ref tokenizer beta prompt response_chosen response_rejected",
}
BY_KEYWORDS = {"run_compute_group_normalized_rewards", "run_compute_policy_gradient_loss"}


def reward_fn(response, truth):
    return {"reward": len(response) / 10, "format_reward": 1.0, "answer_reward": float(truth in response)}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(4, 6, generator=generator)
    return {
        "old_log_probs": old,
        "policy_log_probs": old + 0.4 * torch.randn(4, 6, generator=generator),
        "advantages": torch.randn(4, 1, generator=generator),
        "raw_rewards": torch.rand(4, 1, generator=generator),
    }


def test_every_name_of_the_contract_is_there_with_its_parameters():
    names = {name for name, value in vars(adapters).items() if name.startswith(("run_", "get_")) and callable(value)}
    assert names == set(CONTRACT) | BY_KEYWORDS
    for name, parameters in CONTRACT.items():
        assert " ".join(inspect.signature(getattr(adapters, name)).parameters) == parameters


def test_tokens_and_log_probs():
    model = tiny_model(dtype=torch.float32)
    tokens = adapters.run_tokenize_prompt_and_output(
        prompt_strs=["Question", "a"], output_strs=["The answer", "b"], tokenizer=tiny_tokenizer()
    )
    assert set(tokens) == {"input_ids", "labels", "response_mask"}
    given = {"model": model, "input_ids": tokens["input_ids"], "labels": tokens["labels"]}
    scored = adapters.run_get_response_log_probs(**given, return_token_entropy=True)
    log_p = model(tokens["input_ids"]).logits.log_softmax(-1)
    torch.testing.assert_close(scored["log_probs"], log_p.gather(-1, tokens["labels"].unsqueeze(-1)).squeeze(-1))
    entropy = adapters.run_compute_entropy(logits=model(tokens["input_ids"]).logits)
    torch.testing.assert_close(scored["token_entropy"], entropy)
    assert set(adapters.run_get_response_log_probs(**given, return_token_entropy=False)) == {"log_probs"}


def test_group_normalized_rewards_of_2025():
    advantages, raw_rewards, metadata = adapters.run_compute_group_normalized_rewards(
        reward_fn=reward_fn,
        rollout_responses=["a", "bbb", "", "cc"],
        repeated_ground_truths=["a", "b", "c", "d"],
        group_size=2,
        advantage_eps=1e-6,
        normalize_by_std=True,
    )
    assert raw_rewards.tolist() == pytest.approx([0.1, 0.3, 0, 0.2])
    assert advantages.tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5, -(0.5**0.5), 0.5**0.5], abs=1e-4)
    assert isinstance(metadata, dict)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5**0.5, -(0.5**0.5), 0, 0]),
        ({"baseline": "mean", "advantage_normalizer": "none"}, [0.5, -0.5, 0, 0]),
        ({"baseline": "mean", "advantage_normalizer": "mean", "advantage_eps": 1e-9}, [1, -1, 0, 0]),
        ({"baseline": "none", "advantage_normalizer": "none"}, [1, 0, 1, 1]),
    ],
)
def test_group_normalized_rewards_of_2026(settings, expected):
    rewards = torch.tensor([1.0, 0, 1, 1])
    advantages, metadata = adapters.run_compute_group_normalized_rewards(raw_rewards=rewards, group_size=2, **settings)
    assert advantages.tolist() == pytest.approx(expected, abs=1e-5)
    assert isinstance(metadata, dict)


def test_rollout_rewards():
    rewards, metadata = adapters.run_compute_rollout_rewards(
        reward_fn=reward_fn, rollout_responses=["a", "bb"], repeated_ground_truths=["a", "c"]
    )
    assert rewards.shape == (2,)
    assert (metadata["reward_mean"], metadata["format_reward_mean"]) == (pytest.approx(0.15), 1)


def test_policy_gradient_losses_of_both_editions_agree(batch):
    for loss_type, method in [
        ("no_baseline", "none"),
        ("reinforce_with_baseline", "none"),
        ("grpo_no_clip", "noclip"),
        ("grpo_clip", "grpo"),
    ]:
        of_2025, metadata = adapters.run_compute_policy_gradient_loss(**batch, loss_type=loss_type, cliprange=0.2)
        weights = batch["raw_rewards" if loss_type == "no_baseline" else "advantages"]
        of_2026, _ = adapters.run_compute_policy_gradient_loss(
            raw_rewards_or_advantages=weights,
            policy_log_probs=batch["policy_log_probs"],
            importance_reweighting_method=method,
            old_log_probs=batch["old_log_probs"],
            cliprange=0.2,
            response_mask=torch.ones(4, 6, dtype=torch.bool),
        )
        assert torch.equal(of_2025, of_2026)
        assert ("clip_fraction" in metadata) == (loss_type == "grpo_clip")
    naive = adapters.run_compute_naive_policy_gradient_loss(
        raw_rewards_or_advantages=batch["raw_rewards"], policy_log_probs=batch["policy_log_probs"]
    )
    torch.testing.assert_close(naive, -batch["raw_rewards"] * batch["policy_log_probs"])
    del batch["raw_rewards"]
    loss, metadata = adapters.run_compute_grpo_clip_loss(**batch, cliprange=0.2)
    assert torch.equal(loss, of_2025)
    assert metadata["clipped"].shape == (4, 6)
    gspo, _ = adapters.run_compute_policy_gradient_loss(
        raw_rewards_or_advantages=batch["advantages"],
        policy_log_probs=batch["policy_log_probs"],
        importance_reweighting_method="gspo",
        old_log_probs=batch["old_log_probs"],
        cliprange=0.2,
        response_mask=torch.ones(4, 6, dtype=torch.bool),
    )
    ratio = (batch["policy_log_probs"] - batch["old_log_probs"]).mean(1, keepdim=True).exp()
    expected = -torch.minimum(ratio * batch["advantages"], ratio.clamp(0.8, 1.2) * batch["advantages"])
    torch.testing.assert_close(gspo, expected.expand(4, 6))


@pytest.mark.parametrize(
    ("adapter", "given"),
    [
        ("run_compute_group_normalized_rewards", {"raw_rewards": 0, "group_size": 2, "normalize_by_std": True}),
        ("run_compute_group_normalized_rewards", {"group_size": 2}),
        ("run_compute_policy_gradient_loss", {"raw_rewards_or_advantages": 0, "policy_log_probs": 0, "loss_type": 0}),
        ("run_compute_policy_gradient_loss", {"policy_log_probs": 0, "loss_type": 0, "response_mask": 0}),
        ("run_compute_policy_gradient_loss", {"raw_rewards_or_advantages": 0, "policy_log_probs": 0, "epsilon": 0}),
    ],
)
def test_a_mixture_of_editions_is_refused(adapter, given):
    with pytest.raises(UsageError, match=r"not those of one edition.*Spring 2025: .*Spring 2026: "):
        getattr(adapters, adapter)(**given)


def test_masks_and_aggregation():
    tensor, mask = torch.arange(6.0).view(2, 3), torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()
    assert adapters.run_masked_mean(tensor=tensor, mask=mask, dim=1).tolist() == [0.5, 5]
    assert adapters.run_masked_mean(tensor=tensor, mask=mask).item() == 2
    assert adapters.run_masked_mean(tensor=tensor, mask=mask & (tensor < 2), dim=-1).isnan().tolist() == [False, True]
    assert adapters.run_masked_normalize(tensor=tensor, mask=mask, dim=0, normalize_constant=2).tolist() == [
        0,
        0.5,
        2.5,
    ]
    given = {"per_token_policy_gradient_loss": tensor, "mask": mask}
    assert adapters.run_aggregate_loss_across_microbatch(**given).item() == 2.75
    constant = adapters.run_aggregate_loss_across_microbatch(
        **given, loss_normalization="constant", normalization_constant=4
    )
    assert constant.item() == 1.5


def test_microbatch_steps_leave_gradients(batch):
    mask = torch.tensor([[1, 0, 1, 1, 0, 0]] * 4).bool()
    policy = batch.pop("policy_log_probs").requires_grad_()
    loss, _ = adapters.run_sft_microbatch_train_step(
        policy_log_probs=policy, response_mask=mask, gradient_accumulation_steps=2, normalize_constant=1.0
    )
    torch.testing.assert_close(loss, -(policy * mask).sum().detach() / 8)
    torch.testing.assert_close(policy.grad, -mask.float() / 8)
    policy.grad = None
    loss, metadata = adapters.run_grpo_microbatch_train_step(
        policy_log_probs=policy, response_mask=mask, gradient_accumulation_steps=2, loss_type="grpo_no_clip", **batch,
        cliprange=0.2,
    )  # fmt: skip
    expected = -batch["advantages"] * (policy - batch["old_log_probs"]).exp()
    torch.testing.assert_close(loss, (expected * mask).sum().detach() / 24)
    torch.testing.assert_close(policy.grad, (expected * mask).detach() / 24)
    assert isinstance(metadata, dict)


def test_grpo_train_step():
    model = tiny_model(dtype=torch.float32)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    before = copy.deepcopy(model.state_dict())
    given = {
        "model": model, "tokenizer": tiny_tokenizer(), "optimizer": optimizer, "gradient_accumulation_steps": 2,
        "max_grad_norm": 1.0, "reward_fn": reward_fn, "repeated_prompts": ["Question"] * 4,
        "rollout_responses": ["a", "The answer", "46", "so"], "repeated_ground_truths": ["46"] * 4, "group_size": 4,
    }  # fmt: skip
    loss, metadata = adapters.run_grpo_train_step(**given)
    assert loss.ndim == 0
    assert not loss.requires_grad
    assert {"loss", "grad_norm", "token_entropy", "reward_mean", "clip_fraction"} <= set(metadata)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    tokens = adapters.run_tokenize_prompt_and_output(
        given["repeated_prompts"], given["rollout_responses"], tiny_tokenizer()
    )
    loss, metadata = adapters.run_grpo_train_step(
        **given,
        baseline="mean",
        advantage_eps=1e-6,
        advantage_normalizer="none",
        importance_reweighting_method="gspo",
        old_log_probs=torch.full(tokens["labels"].shape, -3.0),
        cliprange=0.2,
        loss_normalization="constant",
        normalization_constant=16,
    )
    assert loss.isfinite()
    assert metadata["clip_fraction"] > 0


def test_packed_data_and_its_batches(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"Question {i}?", "response": f"The answer is {i}."} for i in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = adapters.get_packed_sft_dataset(
        tokenizer=tiny_tokenizer(), dataset_path=path, seq_length=16, shuffle=False
    )
    assert dataset[0]["labels"][:-1].tolist() == dataset[0]["input_ids"][1:].tolist()
    assert dataset[0]["input_ids"][0] == tiny_tokenizer().bos_token_id
    batches = adapters.run_iterate_batches(dataset=dataset, batch_size=4, shuffle=False)
    assert len(batches) == -(-len(dataset) // 4)
    assert next(iter(batches))["input_ids"].shape == (4, 16)


def test_parsed_responses():
    example = {"subject": "x", "question": "?", "options": ["a", "b", "c", "d"], "answer": "B"}
    assert adapters.run_parse_mmlu_response(mmlu_example=example, model_output="The correct answer is B.") == "B"
    assert adapters.run_parse_mmlu_response(mmlu_example=example, model_output="Not sure at all") is None
    assert adapters.run_parse_gsm8k_response(model_output="6 times 7 is 42.") == "42"
    assert adapters.run_parse_gsm8k_response(model_output="none") is None


def test_per_instance_dpo_loss():
    lm, lm_ref = tiny_model(dtype=torch.float32), tiny_model(dtype=torch.float32)
    given = {
        "lm_ref": lm_ref, "tokenizer": tiny_tokenizer(), "beta": 0.5, "prompt": "a",
        "response_chosen": "b", "response_rejected": "c",
    }  # fmt: skip
    same = adapters.run_compute_per_instance_dpo_loss(lm=lm, **given)
    assert same.item() == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-6)
    other = adapters.run_compute_per_instance_dpo_loss(lm=tiny_model(dtype=torch.float32, seed=1), **given)
    assert other.ndim == 0
    assert other.item() != pytest.approx(same.item(), abs=1e-3)
