"""TRL's side: its own trainers, told to train on recorded rollouts and given pairs, with its clock read per step."""

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset, load_dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer
from trl_case import (
    ADVANTAGE_EPS,
    BETAS,
    CLIPRANGE,
    DPO_BETA,
    EPS,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Case,
    reward_of,
)


class StepClock(TrainerCallback):
    """Seconds between the begin and the end of each optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def common(accumulation: int, num_steps: int) -> dict[str, Any]:
    """Settings of both trainers that make them do what ours does; no half types, no recomputation."""
    return {
        "output_dir": tempfile.mkdtemp(), "gradient_accumulation_steps": accumulation, "max_steps": num_steps,
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1], "adam_epsilon": EPS, "weight_decay": WEIGHT_DECAY, "max_grad_norm": MAX_GRAD_NORM,
        "bf16": False, "gradient_checkpointing": False, "use_cpu": True, "dataloader_pin_memory": False,
        "logging_steps": 1, "report_to": [], "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip


def run(trainer: Trainer, clock: StepClock) -> dict[str, list[float]]:
    """Seconds, losses and gradient norms of the steps."""
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    return {
        "seconds": clock.seconds,
        "losses": [float(entry["loss"]) for entry in logs],
        "grad_norms": [float(entry["grad_norm"]) for entry in logs],
    }


def grpo_trainer(
    case: Case, model: PreTrainedModel, group_size: int, accumulation: int, num_steps: int, **settings: Any
) -> GRPOTrainer:
    """A trainer on the case's rollouts, which it takes in the place of sampled ones."""
    recorded, tokenizer = case.rollouts(), case.tokenizer()
    rows = len(recorded[0]["prompts"])

    def replay(prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        step = recorded[trainer.state.global_step]
        if [tokenizer.decode(ids) for ids in step["prompts"]] != prompts:
            raise RuntimeError("TRL asks for other prompts than the recorded ones")
        return {"prompt_ids": step["prompts"], "completion_ids": step["completions"], "logprobs": None}

    def reward(completions: list[str], **kwargs: Any) -> list[float]:
        return [reward_of(text) for text in completions]

    prompts = [tokenizer.decode(ids) for step in recorded for ids in step["prompts"][::group_size]]
    defaults = {
        "per_device_train_batch_size": rows // accumulation, "num_generations": group_size, "beta": 0.0,
        "epsilon": CLIPRANGE, "loss_type": "grpo", "scale_rewards": "group", "shuffle_dataset": False,
        "max_completion_length": 10_000,
    }  # fmt: skip
    return GRPOTrainer(
        model=model, reward_funcs=reward, args=GRPOConfig(**common(accumulation, num_steps), **(defaults | settings)),
        train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=tokenizer, rollout_func=replay,
    )  # fmt: skip


def train_grpo(
    case: Case, model: PreTrainedModel, group_size: int, accumulation: int, num_steps: int
) -> Callable[[], dict[str, list[float]]]:
    """A run of TRL's GRPO; ADVANTAGE_EPS is the number that TRL has built in."""
    assert ADVANTAGE_EPS == 1e-4
    trainer, clock = grpo_trainer(case, model, group_size, accumulation, num_steps), StepClock()
    trainer.add_callback(clock)
    return lambda: run(trainer, clock)


def train_dpo(
    case: Case, model: PreTrainedModel, num_pairs: int, accumulation: int, num_steps: int
) -> Callable[[], dict[str, list[float]]]:
    """A run of TRL's DPO, with the reference's log-probabilities computed beforehand, as ours are."""
    arguments = DPOConfig(
        **common(accumulation, num_steps), per_device_train_batch_size=num_pairs // accumulation, beta=DPO_BETA,
        max_length=10_000, precompute_ref_log_probs=True,
    )  # fmt: skip
    dataset = load_dataset("json", data_files=str(case.pairs), split="train", cache_dir=tempfile.mkdtemp())
    trainer = DPOTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=case.tokenizer())
    clock = StepClock()
    trainer.add_callback(clock)
    return lambda: run(trainer, clock)


def loss_and_gradients(trainer: GRPOTrainer, inputs: dict[str, torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
    """TRL's loss on given tensors, and its gradients."""
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, inputs)
    return loss.item(), list(torch.autograd.grad(loss, list(trainer.model.parameters())))
