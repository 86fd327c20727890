"""The launch scripts of DPO, the reward model and PPO ask for settings that the programs have."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from cs336_alignment.ppo.config import PPOConfig
from cs336_alignment.preference.dpo import DPOConfig
from cs336_alignment.reward_model.train import RewardModelConfig
from cs336_alignment.training.config import parse_config

LAUNCH = Path(__file__).parent.parent / "launch"


def given_settings(script, config_class, **environment):
    """What a script would run, as settings: `echo` stands for Python."""
    done = subprocess.run(
        ["bash", LAUNCH / script, "--seed", "7"], env={"PATH": os.environ["PATH"], "PYTHON": "echo", **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    program, *flags = shlex.split(done.stdout)
    assert (LAUNCH.parent / program).is_file()
    return parse_config(config_class, flags, program=program, description="")


@pytest.mark.parametrize(
    ("script", "config_class"),
    [("dpo_hh.sh", DPOConfig), ("reward_model_hh.sh", RewardModelConfig), ("ppo_gsm8k.sh", PPOConfig)],
)
def test_scripts_give_settings_the_programs_take(script, config_class):
    config = given_settings(script, config_class, MODEL="my_model", DATA="my.jsonl")
    assert (config.model, config.data, config.seed) == ("my_model", "my.jsonl", 7)
    assert config.autocast == "bfloat16"


def test_dpo_has_the_handouts_settings():
    config = given_settings("dpo_hh.sh", DPOConfig)
    handout = {"beta": 0.1, "batch_size": 64, "lr": 1e-6, "optimizer": "rmsprop", "epochs": 1, "val_pairs": 200}
    assert {name: getattr(config, name) for name in handout} == handout
