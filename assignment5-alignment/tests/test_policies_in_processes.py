"""A policy in two processes: data parallelism equals one process, FSDP equals data parallelism."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from cs336_alignment.expert_iteration.config import ExpertIterationConfig
from cs336_alignment.expert_iteration.trainer import ExpertIterationTrainer
from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.grpo.trainer import GRPOTrainer
from cs336_alignment.lora import apply_lora
from cs336_alignment.online.collection import Collector
from cs336_alignment.parallel.replica import REPLICAS, shard
from cs336_alignment.ppo.actor_critic import ACTOR_CRITIC_REPLICAS, ActorCritic
from cs336_alignment.ppo.config import PPOConfig
from cs336_alignment.ppo.trainer import PPOTrainer
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.rollouts.weight_sync import copy_weights
from cs336_alignment.training.loop import train
from cs336_systems.fsdp import FSDP
from cs336_systems.process_group import run_in_processes

from .online_cases import (
    QUESTIONS,
    expect_same_weights,
    make_policy,
    make_tokenizer,
    make_trainer,
    repeats_the_answer,
    save_model_and_questions,
    take_steps,
)

# Sums of float64 in another order; Adam's division magnifies their last digits.
TOLERANCE = {"rtol": 1e-7, "atol": 1e-9}
GRPO = {
    "rollout_batch_size": 16, "group_size": 4, "max_tokens": 6, "stop": "", "lr": 3e-3, "max_grad_norm": 0.5,
    "gradient_accumulation_steps": 2,
}  # fmt: skip
GRPO_CASES = {
    "on-policy": {},
    "off-policy with KL": {
        "variant": "dapo", "train_batch_size": 8, "epochs_per_rollout_batch": 2, "kl_coefficient": 0.1,
    },
    "constant": {"variant": "dr_grpo", "max_grad_norm": 0.0},
}  # fmt: skip


def whole(trainer):
    """The trainer's policy as one process would have it."""
    policy = make_policy(seed=99)
    copy_weights(trainer.replica.wrapped, policy)
    return policy


def spread_trainer(trainer_class, config, way, lora=False, only_first_samples=False, **more):
    """As `make_trainer`, in each process; the first one's weights count."""
    policy = make_policy(seed=dist.get_rank())
    if lora:
        apply_lora(policy, rank=2)
    replica, tokenizer = REPLICAS[way](policy, config), make_tokenizer()
    sampled_from = make_policy(seed=7) if way == "fsdp" else policy
    engine = None if only_first_samples and dist.get_rank() else HFEngine(sampled_from, tokenizer)
    collector = Collector(engine, replica, repeats_the_answer, shared=not only_first_samples)
    return trainer_class(config, replica, tokenizer, collector, QUESTIONS, QUESTIONS[:5], **more)


def check_grpo_equals_one_process():
    for name, changes in GRPO_CASES.items():
        config = GRPOConfig(**{**GRPO, **changes})
        reference = make_policy().requires_grad_(False)
        alone = make_trainer(
            GRPOTrainer, config, make_policy(), reference=reference if config.kl_coefficient else None,
            held_out=QUESTIONS[:5],
        )  # fmt: skip
        expected, expected_rollouts = take_steps(alone, 3)
        for way in ("ddp", "fsdp"):
            frozen = None
            if config.kl_coefficient:
                frozen = make_policy().requires_grad_(False)
                if way == "fsdp":
                    assert isinstance(shard(frozen), FSDP)
            trainer = spread_trainer(GRPOTrainer, config, way, reference=frozen)
            metrics, rollouts = take_steps(trainer, 3)
            assert rollouts == expected_rollouts, (name, way)
            for mine, single in zip(metrics, expected, strict=True):
                for key in ("loss", "grad_norm", "token_entropy", "clip_fraction", "reward", "response_length"):
                    assert mine[key] == pytest.approx(single[key], rel=1e-6, abs=1e-9), (name, way, key)
            expect_same_weights(alone.policy, whole(trainer), **TOLERANCE)
            answers = trainer.evaluate()
            assert answers["eval_reward"] == pytest.approx(alone.evaluate()["eval_reward"])


def check_fsdp_divides_the_weights():
    trainer = spread_trainer(GRPOTrainer, GRPOConfig(**GRPO), "fsdp")
    own = sum(parameter.numel() for parameter in trainer.replica.module.parameters())
    assert own < 0.6 * sum(parameter.numel() for parameter in make_policy().parameters())
    number = make_policy().num_parameters()
    assert trainer.replica.count_parameters() == (number, number)
    take_steps(trainer, 1)
    states = [state["exp_avg"].shape for state in trainer.replica.optimizer.state.values()]
    assert states == [
        parameter.shape for group in trainer.replica.optimizer.param_groups for parameter in group["params"]
    ]


def check_first_process_can_sample_for_all():
    """As the vllm engines do: then the other processes only take part in gathering weights."""
    config = GRPOConfig(**GRPO)
    alone = make_trainer(GRPOTrainer, config, make_policy())
    _, expected = take_steps(alone, 2)
    for way in ("ddp", "fsdp"):
        _, rollouts = take_steps(spread_trainer(GRPOTrainer, config, way, only_first_samples=True), 2)
        assert rollouts == expected


def check_processes_share_the_scoring_of_a_reward_model():
    config, scored = GRPOConfig(**GRPO), []

    def score(prompts, responses):
        scored.extend(prompts)
        return [float(len(set(response))) for response in responses]

    _, (expected,) = take_steps(make_trainer(GRPOTrainer, config, make_policy(), score=score), 1)
    assert len(scored) == 16
    for way in ("ddp", "fsdp"):
        scored.clear()
        _, (rollouts,) = take_steps(spread_trainer(GRPOTrainer, config, way, score=score), 1)
        assert rollouts == expected
        assert len(scored) == 8


def check_ppo_equals_one_process():
    """The value function shares the policy's body, or has one of its own, which only the first process decides."""
    for own_critic, changes in ((False, {}), (True, {"kl_target": 0.5, "train_batch_size": 8})):
        config = PPOConfig(
            rollout_batch_size=16, group_size=4, max_tokens=6, stop="", lr=3e-3, gradient_accumulation_steps=2,
            epochs_per_rollout_batch=2, kl_coefficient=0.1, **{"train_batch_size": 16, **changes},
        )  # fmt: skip
        trained, seen = {}, {}
        for way, seed in (("none", 0), ("ddp", dist.get_rank())):
            policy, tokenizer = make_policy(seed), make_tokenizer()
            critic = make_policy(seed + 5).base_model if own_critic else None
            replica = ACTOR_CRITIC_REPLICAS[way](ActorCritic(policy, critic).double().train(), config)
            collector = Collector(HFEngine(policy, tokenizer), replica, repeats_the_answer, shared=True)
            frozen = (nullcontext, make_policy(seed=1))
            trainer = PPOTrainer(config, replica, tokenizer, collector, QUESTIONS, [], frozen)
            seen[way] = take_steps(trainer, 3)
            trained[way] = replica.module
        assert seen["ddp"][1] == seen["none"][1]
        for mine, single in zip(seen["ddp"][0], seen["none"][0], strict=True):
            for key in mine.keys() - {"rollout_seconds"}:
                assert mine[key] == pytest.approx(single[key], rel=1e-6, abs=1e-9, nan_ok=True), key
        expect_same_weights(trained["none"], trained["ddp"], **TOLERANCE)


def check_expert_iteration_with_uneven_batches():
    config = ExpertIterationConfig(
        questions_per_step=7, group_size=3, train_batch_size=4, max_tokens=4, stop="", lr=3e-3, least_reward=0.2
    )
    alone = make_trainer(ExpertIterationTrainer, config, make_policy())
    expected, _ = take_steps(alone, 2)
    assert any(entry["kept_rollouts"] % 4 % 2 for entry in expected), "no batch is uneven"
    for way in ("ddp", "fsdp"):
        trainer = spread_trainer(ExpertIterationTrainer, config, way)
        metrics, _ = take_steps(trainer, 2)
        assert [entry["loss"] for entry in metrics] == pytest.approx([entry["loss"] for entry in expected], rel=1e-6)
        expect_same_weights(alone.policy, whole(trainer), **TOLERANCE)


def check_adapters_in_processes():
    config = GRPOConfig(**GRPO)
    policy = make_policy()
    apply_lora(policy, rank=2)
    alone = make_trainer(GRPOTrainer, config, policy)
    take_steps(alone, 2)
    merged = make_policy(seed=99)
    copy_weights(policy, merged)
    for way in ("ddp", "fsdp"):
        trainer = spread_trainer(GRPOTrainer, config, way, lora=True)
        take_steps(trainer, 2)
        assert trainer.replica.trained_state().keys() == alone.replica.trained_state().keys()
        expect_same_weights(merged, whole(trainer), **TOLERANCE)


def check_checkpoints_are_those_of_one_process(folder):
    """Saved by FSDP, gone on with by one process; saved by one process, gone on with by FSDP."""
    folder = Path(folder)
    config = GRPOConfig(**GRPO, num_steps=4)
    alone = make_trainer(GRPOTrainer, config, make_policy())
    take_steps(alone, 4)
    spread = spread_trainer(GRPOTrainer, config, "fsdp")
    take_steps(spread, 2)
    spread.save_checkpoint(folder / "two.pt")
    dist.barrier()
    resumed = make_trainer(GRPOTrainer, config, make_policy(seed=5))
    resumed.restore_checkpoint(folder / "two.pt")
    assert resumed.step == 2
    take_steps(resumed, 1)
    if dist.get_rank() == 0:
        resumed.save_checkpoint(folder / "three.pt")
    dist.barrier()
    again = spread_trainer(GRPOTrainer, config, "fsdp")
    again.restore_checkpoint(folder / "three.pt")
    take_steps(again, 1)
    expect_same_weights(alone.policy, whole(again), **TOLERANCE)


def check_a_run_writes_one_model(folder):
    """The whole loop in two processes: records and model come from the first one."""
    flags = {**GRPO, "num_steps": 2, "out": f"{folder}/run", "parallel": "fsdp", "dtype": "float32"}
    if dist.get_rank() == 0:
        save_model_and_questions(Path(folder))
    dist.barrier()
    config = GRPOConfig(**flags, model=f"{folder}/policy", data=f"{folder}/questions.jsonl")
    from cs336_alignment.grpo.train import make_trainer as make_from_flags

    trainer = make_from_flags(config)
    result = train(trainer, progress=False)
    assert result.ending == "finished"
    dist.barrier()
    from cs336_alignment.policy import load_policy

    saved = load_policy(result.model, "cpu")
    own = make_policy(dtype=torch.float32)
    copy_weights(trainer.replica.wrapped, own)
    expect_same_weights(own, saved, rtol=0, atol=0)
    assert len((result.folder / "rollouts.jsonl").read_text().splitlines()) == 2 * 16


CHECKS = (
    check_grpo_equals_one_process,
    check_fsdp_divides_the_weights,
    check_first_process_can_sample_for_all,
    check_processes_share_the_scoring_of_a_reward_model,
    check_ppo_equals_one_process,
    check_expert_iteration_with_uneven_batches,
    check_adapters_in_processes,
    check_checkpoints_are_those_of_one_process,
    check_a_run_writes_one_model,
)
NEEDS_FOLDER = (check_checkpoints_are_those_of_one_process, check_a_run_writes_one_model)


def run_checks(folder):
    """All of them in one group of processes, since starting it takes longest; the first failure ends it."""
    for check in CHECKS:
        check(folder) if check in NEEDS_FOLDER else check()


@pytest.mark.slow
def test_in_two_processes(tmp_path):
    assert run_in_processes(run_checks, 2, str(tmp_path)) == [None, None]
