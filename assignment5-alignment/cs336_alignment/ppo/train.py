"""The PPO program: `python scripts/ppo.py --help` lists every setting."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import nn

from cs336_alignment.lora import adapters_off, has_lora
from cs336_alignment.online.build import make_collector, make_score
from cs336_alignment.online.questions import held_out_questions, training_questions
from cs336_alignment.parallel.launch import train_and_tell
from cs336_alignment.parallel.replica import load_frozen
from cs336_alignment.policy import load_tokenizer, load_trainable_policy
from cs336_alignment.ppo.actor_critic import ACTOR_CRITIC_REPLICAS, ActorCritic
from cs336_alignment.ppo.config import PPOConfig
from cs336_alignment.ppo.trainer import PPOTrainer
from cs336_alignment.training.config import parse_config


def make_trainer(config: PPOConfig) -> PPOTrainer:
    """A trainer, ready for `train`.

    Raises:
        UsageError: a model, the data or the engine cannot be used.
    """
    questions, held_out = training_questions(config), held_out_questions(config)
    tokenizer = load_tokenizer(config.model)
    policy = load_trainable_policy(config)
    critic = load_trainable_policy(config).base_model if config.critic == "separate" else None
    replica = ACTOR_CRITIC_REPLICAS[config.parallel](ActorCritic(policy, critic, config.head_chunk_tokens), config)
    if replica.world_size > 1:
        config.check_shares(replica.world_size)
    collector = make_collector(config, replica, tokenizer)
    reference = make_frozen_reference(config, policy) if config.kl_coefficient else None
    return PPOTrainer(config, replica, tokenizer, collector, questions, held_out, reference, make_score(config))


def make_frozen_reference(
    config: PPOConfig, policy: nn.Module
) -> tuple[Callable[[], AbstractContextManager], nn.Module]:
    """The policy before training: with LoRA it is the policy without its adapters, else a second model."""
    if has_lora(policy):
        return partial(adapters_off, policy), policy
    return nullcontext, load_frozen(config, config.model)


def main(argv: Sequence[str] | None = None) -> None:
    """The program: train as `argv` says and print how it went."""
    config = parse_config(
        PPOConfig, argv, program="ppo.py",
        description="Train a policy by proximal policy optimization with a learned value function.",
    )  # fmt: skip
    train_and_tell(make_trainer, config, "ppo")
