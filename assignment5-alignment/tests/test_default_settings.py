"""What programs do without arguments: which model they start from, and settings that fit the data."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cs336_alignment.default_run.stages import Stage
from cs336_alignment.default_task import tuned_model
from cs336_alignment.default_task.base_model import ensure_default_model
from cs336_alignment.default_task.tuned_model import ensure_tuned_model
from cs336_alignment.expert_iteration.config import ExpertIterationConfig
from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.policy import resolve_model
from cs336_alignment.ppo.config import PPOConfig
from cs336_alignment.preference.dpo import DPOConfig
from cs336_alignment.reward_model.train import RewardModelConfig
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.training.config import config_from_settings
from cs336_basics.command_line import UsageError

FROM_TUNED = (GRPOConfig, ExpertIterationConfig, PPOConfig, DPOConfig, RewardModelConfig)

# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config_class", FROM_TUNED)
def test_what_needs_right_answers_starts_from_the_fine_tuned_model(config_class):
    assert config_class().model == "default-sft"
    assert config_from_settings(config_class, {"smoke": True}).model == "default-sft-smoke"
    assert config_from_settings(config_class, {"smoke": True, "model": "mine"}).model == "mine"
    assert config_from_settings(SFTConfig, {"smoke": True}).model == "default-smoke"


@pytest.mark.parametrize("config_class", [SFTConfig, *FROM_TUNED])
def test_a_learning_rate_left_open_fits_the_data(config_class):
    own, others = config_class(), config_class(data="real.jsonl")
    assert others.lr <= 2e-5 < 1e-4 <= own.lr
    for data in (None, "real.jsonl"):
        assert config_class(data=data, lr=0.5).lr == 0.5
    with pytest.raises(UsageError, match=r"lr is '1'; it must be of type float"):
        config_class(lr="1")


@pytest.mark.parametrize(
    ("config_class", "name", "own", "others"),
    [(GRPOConfig, "num_steps", 80, 200), (DPOConfig, "val_pairs", 500, 200), (RewardModelConfig, "eval_every", 25, 50)],
)
def test_so_do_other_settings(config_class, name, own, others):
    assert getattr(config_class(), name) == own
    assert getattr(config_class(data="real.jsonl"), name) == others
    assert getattr(config_class(**{name: 7}), name) == 7


def test_a_reward_model_picks_answers_of_the_model_it_starts_from():
    assert RewardModelConfig().sampler == "default-sft"
    assert RewardModelConfig(model="mine").sampler == "mine"
    assert RewardModelConfig(sampler="other").sampler == "other"
    assert RewardModelConfig(data="real.jsonl").sampler is None


def test_a_stage_of_the_default_run_is_repeated_when_a_default_changes():
    first, second = (Stage("grpo", "module", {}, settings=GRPOConfig(lr=lr).to_dict()) for lr in (1e-3, 2e-3))
    assert first.fingerprint == Stage("grpo", "module", {}, settings=GRPOConfig(lr=1e-3).to_dict()).fingerprint
    assert first.fingerprint != second.fingerprint


# ---- the fine-tuned model -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return ensure_default_model(tmp_path_factory.mktemp("models"), smoke=True, progress=False)


@pytest.fixture
def models(tmp_path, base):
    """A folder of models with the base model alone."""
    shutil.copytree(base, tmp_path / "models" / base.name)
    return tmp_path / "models"


def test_an_interrupted_one_leaves_nothing(models, monkeypatch):
    def interrupted(trainer, on_step, **settings):
        return train(
            trainer, on_step=lambda entry: entry["step"] == 1 and signal.raise_signal(signal.SIGINT), **settings
        )

    train = tuned_model.train
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuned_model, "train", interrupted)
        ensure_tuned_model(models, smoke=True, progress=False)
    assert [path.name for path in models.iterdir() if "sft" in path.name] == [".smoke-sft.lock"]


def test_it_is_made_once_from_the_base_model(models, monkeypatch, capsys):
    monkeypatch.chdir(models.parent)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tuned = Path(resolve_model("default-sft-smoke"))
    assert torch.equal(torch.rand(3), expected)  # whoever asks for it goes on as if it had been there
    assert tuned == Path("models/smoke-sft")
    assert "no fine-tuned model in models/smoke-sft: fine-tuning models/smoke" in capsys.readouterr().err
    weights, base = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (tuned, "models/smoke"))
    assert weights.keys() == base.keys()
    assert not torch.equal(weights["model.norm.weight"], base["model.norm.weight"])
    made = (tuned / "model.safetensors").stat()
    capsys.readouterr()
    assert resolve_model("default-sft-smoke") == str(tuned)
    assert (tuned / "model.safetensors").stat() == made
    assert "fine-tun" not in capsys.readouterr().err
    recipe = json.loads((tuned / "recipe.json").read_text())
    recipe["recipe"]["base"]["steps"] += 1  # as if it came from another base model
    (tuned / "recipe.json").write_text(json.dumps(recipe))
    assert resolve_model("default-sft-smoke") == str(tuned)
    assert (tuned / "model.safetensors").stat().st_mtime_ns > made.st_mtime_ns
