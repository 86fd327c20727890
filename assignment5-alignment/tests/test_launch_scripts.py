"""The launch scripts ask for settings that their programs take, read by the programs' own parsers."""

import os
import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from cs336_alignment.expert_iteration.config import ExpertIterationConfig
from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.ppo.config import PPOConfig
from cs336_alignment.preference.dpo import DPOConfig
from cs336_alignment.reward_model.train import RewardModelConfig
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.training.config import parse_config
from cs336_alignment.training.optimizer import learning_rate

FOLDER = Path(__file__).parents[1]
LAUNCH = FOLDER / "launch"
SCRIPTS = {
    "sft_math.sh": SFTConfig,
    "sft_instruction.sh": SFTConfig,
    "dpo_hh.sh": DPOConfig,
    "reward_model_hh.sh": RewardModelConfig,
    "ppo_gsm8k.sh": PPOConfig,
    "grpo_math.sh": GRPOConfig,
    "grpo_gsm8k.sh": GRPOConfig,
    "expert_iteration_math.sh": ExpertIterationConfig,
}


def given_settings(script, *flags, **environment):
    """What a script would run, as settings: `echo` stands for Python."""
    done = subprocess.run(
        ["bash", LAUNCH / script, "--seed", "7", *flags],
        env={"PATH": os.environ["PATH"], "PYTHON": "echo", **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    program, *given = shlex.split(done.stdout)
    assert (FOLDER / program).is_file()
    return parse_config(SCRIPTS[script], given, program=program, description="")


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_give_settings_the_programs_take(script):
    config = given_settings(script, MODEL="my_model", DATA="mine")
    assert (config.model, config.seed, config.autocast) == ("my_model", 7, "bfloat16")
    assert config.data.split("/")[0] == "mine"
    if config.processes:
        config.check_shares(config.processes)


@pytest.mark.parametrize("script", SCRIPTS)
def test_headers_name_variables_and_flags_that_there_are(script):
    text = (LAUNCH / script).read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("# "))
    assert f"launch/{script}" in header
    for variable in re.findall(r"\b([A-Z_]{2,})=", header):
        assert f"${{{variable}:" in text, variable
    flags = {name.removeprefix("--") for name in re.findall(r"--[a-z_]+", header)}
    assert flags <= {"help", *(spec.name for spec in fields(SCRIPTS[script]))}


@pytest.mark.parametrize(
    ("script", "handout"),
    [
        ("dpo_hh.sh", {"beta": 0.1, "batch_size": 64, "lr": 1e-6, "optimizer": "rmsprop", "epochs": 1}),
        ("sft_instruction.sh", {"packed": True, "seq_length": 512, "batch_size": 32, "lr": 2e-5, "epochs": 1.0}),
        ("grpo_math.sh", {"lr": 1e-5, "rollout_batch_size": 256, "group_size": 8, "min_tokens": 4, "max_tokens": 1024}),
        ("expert_iteration_math.sh", {"num_steps": 5, "min_tokens": 4, "max_tokens": 1024, "engine": "vllm"}),
    ],
)
def test_scripts_have_the_handouts_settings(script, handout):
    config = given_settings(script)
    assert {name: getattr(config, name) for name in handout} == handout


def test_instruction_tuning_warms_up_for_three_percent():
    config = given_settings("sft_instruction.sh")
    assert learning_rate(28, 1000, config) < config.lr == learning_rate(29, 1000, config)


def test_subsets_of_the_reasoning_traces():
    assert given_settings("sft_math.sh").num_examples is None
    config = given_settings("sft_math.sh", "--only_correct", NUM_EXAMPLES="128")
    assert (config.num_examples, config.only_correct) == (128, True)
