"""PPO: policy and value function, a whole step by independent arithmetic, resume, LoRA, rewards, and that it learns."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.lora import adapters_off, apply_lora
from cs336_alignment.online.collection import Collector
from cs336_alignment.policy import load_policy
from cs336_alignment.ppo import train as ppo_training
from cs336_alignment.ppo.actor_critic import ActorCritic, ActorCriticReplica
from cs336_alignment.ppo.config import PPOConfig
from cs336_alignment.ppo.trainer import PPOTrainer
from cs336_alignment.reward_model.model import RewardModel, save_reward_model
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.training.config import config_from_settings
from cs336_alignment.training.loop import train
from cs336_basics.command_line import UsageError, run_command
from cs336_basics.run_log import read_metrics

from .online_cases import (
    LETTERS,
    QUESTIONS,
    begins_with_the_answer,
    expect_same_weights,
    make_policy,
    make_tokenizer,
    repeats_the_answer,
    save_model_and_questions,
    take_steps,
    token_log_probs,
)

SETTINGS = {
    "device": "cpu", "max_tokens": 5, "stop": "", "group_size": 2, "rollout_batch_size": 8, "train_batch_size": 4,
    "epochs_per_rollout_batch": 2, "num_steps": 3, "lr": 1e-3, "kl_coefficient": 0.1, "eps": 1e-4,
}  # fmt: skip


def ppo_config(**changes):
    return config_from_settings(PPOConfig, {**SETTINGS, **changes})


def make_ppo(config, policy=None, reward_fn=repeats_the_answer, critic=None, **more):
    """A trainer in float64; the reference is another policy, unless `more` says so."""
    policy = make_policy() if policy is None else policy
    module = ActorCritic(policy, critic).double().train()
    with torch.no_grad():
        module.value_head.weight.normal_(generator=torch.Generator().manual_seed(3))
    replica, tokenizer = ActorCriticReplica(module, config), make_tokenizer()
    collector = Collector(HFEngine(policy, tokenizer), replica, reward_fn, shared=True)
    if config.kl_coefficient and "reference" not in more:
        more["reference"] = (torch.no_grad, make_policy(seed=1))
    return PPOTrainer(config, replica, tokenizer, collector, QUESTIONS, [], **more)


def random_rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, len(LETTERS) + 1, (3, 7), generator=generator)
    mask = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    return ids[:, :-1], ids[:, 1:], mask


@pytest.mark.parametrize("own_critic", [False, True])
@pytest.mark.parametrize("chunk_tokens", [None, 2])
def test_policy_and_values_are_read_off_the_hidden_states(own_critic, chunk_tokens):
    policy = make_policy()
    critic = make_policy(seed=2).base_model if own_critic else None
    module = ActorCritic(policy, critic, chunk_tokens).double()
    inputs, labels, mask = random_rows()
    assert not module(inputs, labels, mask).values.any()  # it starts at 0
    with torch.no_grad():
        module.value_head.weight.normal_()
    estimates = module(inputs, labels, mask)
    expected = get_response_log_probs(policy, inputs, labels, True, response_mask=mask)
    torch.testing.assert_close(estimates.log_probs, expected["log_probs"])
    torch.testing.assert_close(estimates.entropy, expected["token_entropy"])
    hidden = (critic or policy.base_model)(inputs).last_hidden_state
    values = torch.where(mask, hidden @ module.value_head.weight[0], 0)
    torch.testing.assert_close(estimates.values, values)
    sums = [tensor.sum() for tensor in (estimates.values, values)]
    shared = [p for p in (critic or policy.base_model).parameters() if p.requires_grad]
    for ours, theirs in zip(*(torch.autograd.grad(total, shared, retain_graph=True) for total in sums), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_value_comes_before_its_token():
    """Changing a response's last token changes no value."""
    module = ActorCritic(make_policy()).double()
    torch.nn.init.normal_(module.value_head.weight)
    inputs, labels, mask = random_rows()
    other = labels.clone()
    other[1, 5] = (labels[1, 5] + 1) % 9
    assert torch.equal(module(inputs, labels, mask).values, module(inputs, other, mask).values)


def test_models_with_more_than_a_plain_head_are_refused():
    config = GPTJConfig(vocab_size=9, n_embd=16, n_layer=1, n_head=2, rotary_dim=4)
    with pytest.raises(UsageError, match="gptj is not supported"):
        ActorCritic(GPTJForCausalLM(config))


def _advantages_of(rewards, values, gamma, lam):
    """By the definition: discounted sums of the residuals."""
    values = [*values, 0.0]
    residuals = [r + gamma * after - before for r, (before, after) in zip(rewards, pairwise(values), strict=True)]
    count = range(len(rewards))
    return [sum((gamma * lam) ** (k - t) * residuals[k] for k in count if k >= t) for t in count]


def _responses_before(trainer, rollouts, config):
    """Of every rollout, token by token: log-probabilities, values, advantages and returns, in plain numbers."""
    tokenizer, module = trainer.tokenizer, trainer.replica.module
    rows = []
    for rollout in rollouts:
        prompt, response = tokenizer.encode(rollout.prompt), rollout.token_ids
        log_probs = token_log_probs(module.policy, prompt, response).tolist()
        reference = token_log_probs(trainer.reference[1], prompt, response).tolist()
        values = _values(module, prompt, response).tolist()
        rewards = [-config.kl_coefficient * (a - b) for a, b in zip(log_probs, reference, strict=True)]
        rewards[-1] += rollout.reward
        advantages = _advantages_of(rewards, values, config.gamma, config.gae_lambda)
        rows.append((prompt, response, log_probs, values, advantages))
    every = np.concatenate([row[4] for row in rows])
    return [
        (*row, [(a - every.mean()) / math.sqrt(every.var() + 1e-8) for a in row[4]], list(np.add(row[4], row[3])))
        for row in rows
    ]


def _values(module, prompt, response):
    hidden = module.policy.base_model(torch.tensor([prompt + response])).last_hidden_state[0]
    return hidden[len(prompt) - 1 : -1] @ module.value_head.weight[0]


def test_a_step_is_that_of_the_formulas():
    """Responses one at a time, Python's arithmetic, torch's clipping and AdamW."""
    config = ppo_config(
        cliprange=0.01, value_cliprange=0.02, entropy_coefficient=0.05, gamma=0.9, gae_lambda=0.8,
        gradient_accumulation_steps=3, max_grad_norm=0.5,
    )  # fmt: skip
    ours, other = make_ppo(config), make_ppo(config)
    (metrics,), (rollouts,) = take_steps(ours, 1)
    module = other.replica.module
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad], lr=1e-3, betas=(0.9, 0.95), eps=1e-4, weight_decay=0
    )
    rows = _responses_before(other, rollouts, config)
    seen = {"loss": [], "clipped": []}
    for epoch in range(2):
        order = np.random.default_rng([config.seed, 0, epoch]).permutation(8)
        for chosen in (order[:4], order[4:]):
            loss, clipped, tokens = 0.0, 0, 0
            for prompt, response, old, old_values, _, advantages, returns in (rows[index] for index in chosen):
                ids = torch.tensor([prompt + response])
                log_p = torch.log_softmax(module.policy(ids).logits[0, len(prompt) - 1 : -1], dim=-1)
                values = _values(module, prompt, response)
                for t, token in enumerate(response):
                    ratio = torch.exp(log_p[t, token] - old[t])
                    bounded = ratio.clamp(0.99, 1.01) * advantages[t]
                    loss = loss - min(ratio * advantages[t], bounded)
                    clipped += (bounded < ratio * advantages[t]).item()
                    near = old_values[t] + (values[t] - old_values[t]).clamp(-0.02, 0.02)
                    loss = loss + 0.5 * 0.5 * max((values[t] - returns[t]) ** 2, (near - returns[t]) ** 2)
                    loss = loss + 0.05 * (log_p[t].exp() * log_p[t]).sum()
                    tokens += 1
            optimizer.zero_grad()
            (loss / tokens).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimizer.step()
            seen["loss"].append(loss.item() / tokens)
            seen["clipped"].append(clipped / tokens)
    assert metrics["loss"] == pytest.approx(np.mean(seen["loss"]), rel=1e-5)
    assert metrics["clip_fraction"] == pytest.approx(np.mean(seen["clipped"]))
    assert metrics["clip_fraction"] > 0.1
    expect_same_weights(module, ours.replica.module, rtol=1e-4, atol=1e-6)


def test_what_is_logged_is_what_happened():
    trainer = make_ppo(ppo_config())
    before = make_ppo(ppo_config())
    (metrics,), (rollouts,) = take_steps(trainer, 1)
    rows = _responses_before(before, rollouts, trainer.config)
    references = [token_log_probs(before.reference[1], row[0], row[1]).sum().item() for row in rows]
    kl = np.mean([sum(row[2]) - reference for row, reference in zip(rows, references, strict=True)])
    assert metrics["kl"] == pytest.approx(kl)
    values, returns = (np.concatenate([row[column] for row in rows]) for column in (3, 6))
    assert metrics["value"] == pytest.approx(values.mean())
    assert metrics["return"] == pytest.approx(returns.mean())
    assert metrics["explained_variance"] == pytest.approx(1 - (returns - values).var() / returns.var())
    assert metrics["reward"] == pytest.approx(np.mean([rollout.reward for rollout in rollouts]))


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts):
    whole, accumulated = make_ppo(ppo_config()), make_ppo(ppo_config(gradient_accumulation_steps=parts))
    (first,), (second,) = (take_steps(trainer, 1)[0] for trainer in (whole, accumulated))
    for name in ("loss", "policy_loss", "value_loss", "grad_norm", "token_entropy", "kl"):
        assert second[name] == pytest.approx(first[name], rel=1e-9, abs=1e-12)
    expect_same_weights(whole.replica.module, accumulated.replica.module, rtol=1e-7, atol=1e-9)


def test_values_are_learned():
    """With the policy at rest and rewards that follow from the question, the value function foresees the returns."""

    def reward_fn(response, answer):
        return {"reward": LETTERS.index(answer) / 4, "format_reward": 1.0, "answer_reward": 1.0}

    config = ppo_config(
        kl_coefficient=0.0, value_cliprange=0.0, num_steps=8, lr=2e-2, rollout_batch_size=32, train_batch_size=16,
        epochs_per_rollout_batch=4,
    )  # fmt: skip
    trainer = make_ppo(config, reward_fn=reward_fn, critic=make_policy(seed=2).base_model)
    trainer.policy.requires_grad_(False)
    metrics, _ = take_steps(trainer, 8)
    assert metrics[0]["explained_variance"] < 0.1
    assert metrics[-1]["explained_variance"] > 0.6
    assert metrics[-1]["value_loss"] < metrics[0]["value_loss"] / 4


@pytest.mark.parametrize("separate", [False, True])
def test_a_bandit_is_learned(separate):
    """One token decides: the reward is 1 if the response begins with the question's last letter."""
    config = ppo_config(
        max_tokens=1, group_size=4, rollout_batch_size=64, train_batch_size=32, lr=1e-2, kl_coefficient=0.0,
        num_steps=25,
    )  # fmt: skip
    critic = make_policy(seed=2).base_model if separate else None
    metrics, _ = take_steps(make_ppo(config, reward_fn=begins_with_the_answer, critic=critic), 25)
    assert metrics[0]["reward"] < 0.3
    assert np.mean([entry["reward"] for entry in metrics[-3:]]) > 0.8


def test_the_penalty_pulls_the_policy_to_its_reference():
    """Which is another model here, and all rewards are 0."""

    def nothing(response, answer):
        return {"reward": 0.0, "format_reward": 0.0, "answer_reward": 0.0}

    config = ppo_config(kl_coefficient=1.0, lr=1e-2, group_size=4, rollout_batch_size=64, train_batch_size=32)
    trainer = make_ppo(config, reward_fn=nothing)
    torch.nn.init.zeros_(trainer.replica.module.value_head.weight)
    metrics, _ = take_steps(trainer, 8)
    assert 0 < metrics[-1]["kl"] < metrics[0]["kl"] / 2


def test_the_penalty_follows_its_target():
    trainer = make_ppo(ppo_config(kl_target=1e-3))  # the reference is another model: far beyond the target
    metrics, _ = take_steps(trainer, 3)
    assert [entry["kl_coefficient"] for entry in metrics] == pytest.approx([0.1, 0.102, 0.10404])
    assert trainer.extra_state() == {"kl_coefficient": pytest.approx(0.1061208)}


def test_lora_takes_the_policy_without_adapters_for_its_reference():
    base = make_policy()
    policy = make_policy()
    apply_lora(policy, rank=2)
    config = ppo_config(lora_rank=2, lr=1e-2)
    reference = ppo_training.make_frozen_reference(config, policy)
    assert reference[1] is policy
    trainer = make_ppo(config, policy=policy, reference=reference)
    metrics, _ = take_steps(trainer, 2)
    assert metrics[0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert abs(metrics[1]["kl"]) > 1e-6
    inputs = torch.arange(8).view(1, 8)
    policy.eval()
    adapted = policy(inputs).logits
    with adapters_off(policy):
        torch.testing.assert_close(policy(inputs).logits, base(inputs).logits, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(policy(inputs).logits, adapted)
    assert not torch.allclose(adapted, base(inputs).logits, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{}, {"lora_rank": 2}, {"critic": "separate", "kl_target": 0.5, "autocast": "bfloat16"}],
)
def test_a_resumed_run_is_the_one_that_was_never_stopped(tmp_path, settings):
    given = {
        **SETTINGS, **save_model_and_questions(tmp_path), "out": str(tmp_path / "run"), "save_every": 1,
        "keep_checkpoints": 0, "eval_every": 2, "eval_examples": 3, **settings,
    }  # fmt: skip
    config = config_from_settings(PPOConfig, given)
    whole = ppo_training.make_trainer(config)
    train(whole, progress=False)
    files = [tmp_path / "run" / name for name in ("metrics.jsonl", "rollouts.jsonl")]
    before = [read_metrics(file) for file in files]
    assert len(before[1]) == 24
    assert {"step", "prompt", "response", "answer", "reward", "advantage", "length"} <= set(before[1][0])
    resumed = ppo_training.make_trainer(replace(config, resume_ckp=str(tmp_path / "run/checkpoints/checkpoint_1.pt")))
    train(resumed, progress=False)
    for name, value in whole.replica.module.state_dict().items():
        assert torch.equal(value, resumed.replica.module.state_dict()[name])
    timeless = [[{k: v for k, v in entry.items() if "seconds" not in k} for entry in log] for log in before]
    again = [[{k: v for k, v in entry.items() if "seconds" not in k} for entry in read_metrics(file)] for file in files]
    assert again == timeless


def test_the_program_runs_whole_with_a_reward_model(tmp_path, capsys):
    files = save_model_and_questions(tmp_path)
    model = RewardModel(load_policy(files["model"], "cpu").base_model)
    save_reward_model(model, make_tokenizer(), tmp_path / "reward_model")
    flags = [f"--{name}={value}" for name, value in files.items()]
    flags += ["--device=cpu", "--smoke", "--stop=", f"--out={tmp_path / 'out'}"]
    ppo_training.main([*flags, f"--reward_model={tmp_path / 'reward_model'}"])
    assert "eval_reward" in capsys.readouterr().out
    rollouts = read_metrics(tmp_path / "out" / "rollouts.jsonl")
    assert [entry["step"] for entry in rollouts] == [1] * 8 + [2] * 8
    assert len({entry["reward"] for entry in rollouts}) > 2
    assert load_policy(tmp_path / "out" / "model", "cpu").config.vocab_size == 9
    with pytest.raises(SystemExit) as stopped:
        run_command(ppo_training.main, [*flags, "--reward_model", str(tmp_path / "nowhere")])
    assert stopped.value.code == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"gae_lambda": -0.1}, "gae_lambda is -0.1"),
        ({"rollout_batch_size": 7}, "rollout_batch_size is 7"),
        ({"train_batch_size": 3}, "rollout_batch_size is 8, which train_batch_size 3 does not divide"),
        ({"gradient_accumulation_steps": 5}, "gradient_accumulation_steps is 5"),
        ({"kl_target": 1.0, "kl_coefficient": 0.0}, "kl_target is 1.0 with a kl_coefficient of 0.0"),
        ({"parallel": "fsdp"}, "parallel is 'fsdp'"),
        ({"cliprange": -1.0}, "cliprange is -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, named):
    with pytest.raises(UsageError, match=named):
        ppo_config(**settings)
