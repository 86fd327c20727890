"""A run that is killed in the middle of a step and resumed is the run that was not killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cs336_alignment.online import build

from .killed_run import PROGRAMS, share_of_the_answer
from .online_cases import save_model_and_questions

TIMES = ("seconds", "rollout_seconds", "rollout_tokens_per_second", "update_seconds")
FLAGS = {
    "grpo": {
        "num_steps": 4, "rollout_batch_size": 8, "group_size": 4, "train_batch_size": 4, "variant": "dapo",
        "kl_coefficient": 0.01, "dynamic_sampling": 2, "lora_rank": 2, "lora_dropout": 0.1, "save_every": 2,
    },
    "expert_iteration": {
        "num_steps": 4, "questions_per_step": 4, "group_size": 2, "train_batch_size": 2, "least_reward": 0.1,
        "epochs_per_step": 2, "save_every": 2,
    },
}  # fmt: skip


def words(flags):
    return ["--no_wandb", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]


def run_and_kill(program, graded, **flags):
    """In a process of its own; returns its exit code."""
    script = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), program, str(graded), *words(flags)]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode


@pytest.fixture
def run(monkeypatch):
    """In this process, in one thread as the killed one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(build, "reward_function", lambda config: share_of_the_answer)
    yield lambda program, **flags: PROGRAMS[program](words(flags))
    torch.set_num_threads(threads)


def entries(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("program", FLAGS)
def test_killed_in_the_middle_of_a_step(program, tmp_path, run):
    common = {**save_model_and_questions(tmp_path), **FLAGS[program], "max_tokens": 4, "stop": "", "lr": 3e-3}
    common |= {"eval_examples": 3, "eval_every": 1, "device": "cpu"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(program, **common, out=whole)
    rollouts = entries(whole / "rollouts.jsonl")
    assert len(rollouts) == 4 * 8

    # Every step grades 8 responses, GRPO's perhaps 16, and every evaluation 3.
    assert run_and_kill(program, 38, **common, out=killed) == -signal.SIGKILL
    assert not (killed / "model").exists()
    last = entries(killed / "metrics.jsonl")[-1]["step"]
    assert 2 <= last < 4
    run(program, resume_ckp="latest", out=killed)

    assert entries(killed / "rollouts.jsonl") == rollouts
    assert entries(killed / "metrics.jsonl") == entries(whole / "metrics.jsonl")
    assert (killed / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
