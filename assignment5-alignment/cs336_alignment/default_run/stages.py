"""The stages of the run: which program with which settings on what earlier stage's model.

base model -> supervised fine-tuning -> expert iteration, GRPO, DPO, reward model, each from the fine-tuned model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cs336_alignment.default_task.base_model import DEFAULT_FOLDER, model_folder
from cs336_alignment.expert_iteration.config import ExpertIterationConfig
from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.preference.dpo import DPOConfig
from cs336_alignment.reward_model.train import RewardModelConfig
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.training.config import TrainingConfig, config_from_settings

QUESTIONS_NAME = "questions.jsonl"
TRAINED = ("sft", "expert_iteration", "grpo", "dpo")
"""The stages that make a policy, in the order of the tables."""
BASE = "base"


@dataclass(frozen=True)
class Stage:
    """One call of a program, as a process of its own.

    Attributes:
        name: its folder's name below the run's.
        module: has the program's `main(argv)`.
        flags: its flags; True stands for a flag without a value. The folder of the stage is added as --out.
        needs: stages that must be finished.
        has_checkpoints: the program goes on with `--resume_ckp latest`.
        settings: all that the flags come to, with the program's defaults.
    """

    name: str
    module: str
    flags: Mapping[str, object]
    needs: tuple["Stage", ...] = ()
    has_checkpoints: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of everything that determines the result."""
        parts = [
            self.module, dict(self.flags), dict(self.settings), [needed.fingerprint for needed in self.needs],
        ]  # fmt: skip
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def arguments(self, out: Path) -> list[str]:
        """The command line's arguments."""
        words = ["--out", str(out)]
        for name, value in self.flags.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return words


PROGRAMS: dict[str, tuple[str, type[TrainingConfig]]] = {
    "sft": ("cs336_alignment.sft.train", SFTConfig),
    "expert_iteration": ("cs336_alignment.expert_iteration.train", ExpertIterationConfig),
    "grpo": ("cs336_alignment.grpo.train", GRPOConfig),
    "reward_model": ("cs336_alignment.reward_model.train", RewardModelConfig),
    "dpo": ("cs336_alignment.preference.dpo", DPOConfig),
}
"""The training programs and their settings, whose defaults are made for this task."""
# Every model is measured at the end anyway.
CHANGES: dict[str, dict[str, object]] = {"sft": {"eval_every": 0}}
"""What is not left at the defaults."""
NUM_QUESTIONS = 512
"""Held-out questions that every model answers at the end."""
SMOKE_QUESTIONS = 16


def base_stage(smoke: bool) -> Stage:
    """Pretraining the base model, unless it is there already."""
    flags = {"quiet": True, "folder": str(DEFAULT_FOLDER), **({"smoke": True} if smoke else {})}
    return Stage("base_model", "cs336_alignment.default_run.pretrain", flags)


def seed_stages(run: Path, seed: int, smoke: bool) -> list[Stage]:
    """Everything for one seed, each stage behind those it needs."""
    place = f"seed_{seed}"
    base = base_stage(smoke)

    def train(name: str, model: Path, *needs: Stage) -> Stage:
        changes = {"smoke": True} if smoke else CHANGES.get(name, {})
        flags = {"model": str(model), "seed": seed, "device": "cpu", "no_wandb": True, **changes}
        module, config_class = PROGRAMS[name]
        settings = config_from_settings(config_class, flags).to_dict()
        return Stage(f"{place}/{name}", module, flags, needs, has_checkpoints=True, settings=settings)

    sft = train("sft", model_folder(smoke=smoke), base)
    tuned = [train(name, run / sft.name / "model", sft) for name in PROGRAMS if name != "sft"]
    measured = [
        measure_stage(run, stage, seed, smoke) for stage in (sft, *tuned) if stage.name.split("/")[1] in TRAINED
    ]
    return [sft, *sorted(tuned, key=lambda stage: "grpo" not in stage.name), *measured]


def measure_stage(run: Path, trained: Stage, seed: int, smoke: bool) -> Stage:
    """Measuring what a stage has made on the held-out questions."""
    is_base = trained.name == "base_model"
    model = model_folder(smoke=smoke) if is_base else run / trained.name / "model"
    flags = {"model": str(model), "data": str(run / QUESTIONS_NAME), "seed": seed}
    name = f"seed_{seed}/{BASE}" if is_base else trained.name
    return Stage(f"{name}_measured", "cs336_alignment.default_run.measure", flags, (trained,))


def all_stages(run: Path, seeds: list[int], smoke: bool) -> list[Stage]:
    """The stages of the whole run."""
    base = base_stage(smoke)
    stages = [base]
    for seed in seeds:
        stages += [*seed_stages(run, seed, smoke), measure_stage(run, base, seed, smoke)]
    return stages
