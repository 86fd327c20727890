"""A run that is killed, or fails, in the middle of a step and is resumed is the run that was not."""

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


def prepare(program, folder):
    """The flags of a run in which everything random takes part, without its folder."""
    flags = {**save_model_and_questions(folder), **FLAGS[program], "max_tokens": 4, "stop": "", "lr": 3e-3}
    return flags | {"eval_examples": 3, "eval_every": 1, "device": "cpu"}


def check_that_it_goes_on(program, flags, run, stopped):
    """The stopped run is behind step 2 and before step 4; it ends as the whole one does."""
    whole = stopped.with_name("whole")
    run(program, **flags, out=whole)
    rollouts = entries(whole / "rollouts.jsonl")
    assert len(rollouts) == 4 * 8
    assert not (stopped / "model").exists()
    last = entries(stopped / "metrics.jsonl")[-1]["step"]
    assert 2 <= last < 4
    run(program, resume_ckp="latest", out=stopped)

    assert entries(stopped / "rollouts.jsonl") == rollouts
    assert entries(stopped / "metrics.jsonl") == entries(whole / "metrics.jsonl")
    assert (stopped / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()


# Every step grades 8 responses, GRPO's perhaps 16, and every evaluation 3.
GRADED = 38


@pytest.mark.slow
def test_grpo_killed_in_the_middle_of_a_step(tmp_path, run):
    flags = prepare("grpo", tmp_path)
    assert run_and_kill("grpo", GRADED, **flags, out=tmp_path / "stopped") == -signal.SIGKILL
    check_that_it_goes_on("grpo", flags, run, tmp_path / "stopped")


def test_expert_iteration_that_fails_in_the_middle_of_a_step(tmp_path, run, monkeypatch):
    graded = []

    def reward(response, answer):
        graded.append(response)
        if len(graded) > GRADED:
            raise RuntimeError("the disk of the grader is full")
        return share_of_the_answer(response, answer)

    flags = prepare("expert_iteration", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(build, "reward_function", lambda config: reward)
        with pytest.raises(RuntimeError, match="the grader is full"):
            run("expert_iteration", **flags, out=tmp_path / "stopped")
    check_that_it_goes_on("expert_iteration", flags, run, tmp_path / "stopped")
