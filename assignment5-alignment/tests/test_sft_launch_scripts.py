"""The launch scripts ask for what the program accepts."""

import os
import subprocess
from pathlib import Path

import pytest

from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.training.config import parse_config

LAUNCH = Path(__file__).parents[1] / "launch"


def settings_of(tmp_path, *command, **environment):
    """What a script would run `uv` with, read by the program's own parser."""
    shim = tmp_path / "uv"
    shim.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    shim.chmod(0o755)
    output = subprocess.run(
        ["bash", *map(str, command)],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert output[:3] == ["run", "python", "scripts/sft.py"]
    return parse_config(SFTConfig, output[3:], program="sft.py", description="")


@pytest.mark.parametrize("subset", [None, 128])
def test_math(tmp_path, subset):
    numbers = [] if subset is None else [subset]
    config = settings_of(tmp_path, LAUNCH / "sft_math.sh", "folder", *numbers, "--only_correct")
    assert config.model == "Qwen/Qwen2.5-Math-1.5B"
    assert config.data == "folder/sft.jsonl"
    assert config.num_examples == subset
    assert config.only_correct


def test_instruction_tuning_alone_and_under_slurm(tmp_path):
    alone = settings_of(tmp_path, LAUNCH / "sft_instruction.sh", "folder")
    assert (alone.packed, alone.seq_length, alone.batch_size, alone.lr, alone.epochs) == (True, 512, 32, 2e-5, 1.0)
    script = LAUNCH / "sft_instruction.sh"
    slurm = settings_of(tmp_path, LAUNCH / "sft_slurm.sh", script, "folder", SLURM_JOB_ID="7")
    assert (slurm.parallel, slurm.processes, slurm.out) == ("fsdp", 4, "runs/sft_7")
    slurm.check_shares(4)


def test_a_missing_folder_is_said(tmp_path):
    ended = subprocess.run(["bash", str(LAUNCH / "sft_math.sh")], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "give the folder" in ended.stderr
