"""Training a reward model on preference pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from cs336_alignment.evaluation_mode import evaluation_mode
from cs336_alignment.grading.extraction import ANSWER_CLOSE
from cs336_alignment.online.config import OnlineConfig
from cs336_alignment.online.questions import QUESTION_TASKS, held_out_questions
from cs336_alignment.online.reward_functions import reward_function
from cs336_alignment.parallel.launch import run_and_tell
from cs336_alignment.parallel.processes import sharing_processes
from cs336_alignment.parallel.replica import REPLICAS
from cs336_alignment.policy import load_policy, load_tokenizer, load_trainable_policy
from cs336_alignment.preference.batches import PairBatch, load_pair_sets
from cs336_alignment.preference.config import PairConfig
from cs336_alignment.preference.pair_trainer import PairTrainer
from cs336_alignment.preference.reward_loss import bradley_terry_loss
from cs336_alignment.reward_model.best_of_n import best_of_table, sample_and_score
from cs336_alignment.reward_model.model import RewardModel, load_reward_model, save_reward_model
from cs336_alignment.reward_model.report import write_reward_report
from cs336_alignment.reward_model.score import score_responses
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.training.config import TUNED_MODEL, fitted_setting, parse_config
from cs336_alignment.training.loop import TrainingResult, train
from cs336_alignment.training.trainer import seed_everything
from cs336_basics.command_line import UsageError
from cs336_basics.report import Table
from cs336_basics.settings import setting


@dataclass(frozen=True)
class RewardModelConfig(PairConfig):
    """Settings of a run; each field's help text is its documentation.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    SMOKE: ClassVar = {
        "num_pairs": 64, "val_pairs": 16, "batch_size": 16, "num_steps": 3, "best_of": 2, "best_of_questions": 4,
    }  # fmt: skip

    model: str = setting(
        TUNED_MODEL, "model whose body is taken: a Hugging Face folder or name, or a small one made here, `default` or "
        "`default-sft`",
    )  # fmt: skip
    lr: float | None = fitted_setting(2e-3, 1e-5, "highest learning rate")
    eval_every: int | None = fitted_setting(25, 50, "steps between two evaluations; 0 for none but the last")
    schedule: str = setting("cosine", "learning rate after the warm-up", choices=("constant", "cosine", "linear"))
    num_pairs: int = setting(8000, "pairs made of the default task, besides those for validation")
    centering: float = setting(0.0, "weight of the loss's second term, which keeps scores near 0")

    sampler: str | None = setting(
        None, "policy that answers questions in the end, for the reward model to pick the best answers: a folder or a "
        "name, such as the model/ of a run of sft.py", type=str,
        shown="none, nothing is picked; for the default task, the model that training starts from",
    )  # fmt: skip
    best_of: int = setting(8, "answers to a question of which the best is picked; 0 picks nothing")
    best_of_questions: int = setting(64, "questions for that")
    questions: str | None = setting(None, "file of these questions", type=str, shown="those of the default task")
    task: str = setting("default", "form of the file of questions", choices=QUESTION_TASKS)
    max_tokens: int = setting(64, "tokens a response has at most")
    stop: str = setting(ANSWER_CLOSE, "text that ends a response, and stays in it; empty for none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_range("centering", 0, math.inf)
        self.check_range("best_of", 0, math.inf)
        for name in ("best_of_questions", "max_tokens"):
            self.check_range(name, 1, math.inf)
        if self.sampler is None and (self.task, self.data) == ("default", None):
            object.__setattr__(self, "sampler", self.model)
        if self.questions is not None and self.sampler is None:
            raise UsageError(f"questions is {self.questions}; give the model that answers them with --sampler")
        if self.sampler is not None and self.questions is None and (self.task, self.data) != ("default", None):
            raise UsageError(
                f"sampler is {self.sampler}; give the questions that it answers with --questions: only the default "
                "task has its own"
            )


class RewardModelTrainer(PairTrainer):
    """Raises the scores of chosen responses over those of rejected ones; its replica is of a `RewardModel`."""

    name = "reward_model"
    config: RewardModelConfig

    def pair_losses(self, batch: PairBatch) -> tuple[Float[Tensor, " pairs"], dict[str, Float[Tensor, " pairs"]]]:
        chosen, rejected = self.replica.forward(batch.input_ids, batch.lengths).chunk(2)
        margin = (chosen - rejected).detach()
        return bradley_terry_loss(chosen, rejected, self.config.centering), {
            "accuracy": (margin > 0).float(),
            "margin": margin,
            "chosen_score": chosen,
            "rejected_score": rejected,
        }

    def save_model(self, folder: Path) -> None:
        weights = self.replica.merged_weights()
        if self.replica.writes:
            save_reward_model(self.replica.module, self.tokenizer, folder, weights)


def make_trainer(config: RewardModelConfig, progress: bool = True) -> RewardModelTrainer:
    """This process's trainer, ready for `train`.

    Raises:
        UsageError: a model or the data cannot be used, or a batch cannot be shared by the processes.
    """
    processes, tokenizer = sharing_processes(config), load_tokenizer(config.model)
    config.check_shares(processes.world_size)
    pairs = load_pair_sets(config, tokenizer, tqdm.write if progress and processes.writes else None)
    backbone = load_trainable_policy(config).base_model
    seed_everything(config.seed)  # the head's first weights
    return RewardModelTrainer(config, REPLICAS[config.parallel](RewardModel(backbone), config), tokenizer, pairs)


def run(config: RewardModelConfig, progress: bool = True) -> TrainingResult:
    """Train in this process, alone or as one of several that run the same, and report on the trained model.

    Args:
        config: the settings; `out` names the run's folder.
        progress: show a progress bar and messages, of the first process.
    """
    trainer = make_trainer(config, progress)
    result = train(trainer, progress=progress)
    if result.model is not None:
        with evaluation_mode(trainer.replica.module):
            margins = trainer.validate()["margin"].tolist()
        if trainer.replica.writes:
            sources = [trainer.pairs.pairs[index].source for index in trainer.pairs.val_indices]
            model = load_reward_model(result.model, trainer.device, config.dtype)
            best_of = rank_samples(config, model) if config.sampler is not None and config.best_of else None
            write_reward_report(result.folder, margins, sources, best_of)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Train a reward model on preference pairs, and say how well it tells better from worse responses."""
    config = parse_config(RewardModelConfig, argv, program="reward_model.py", description=main.__doc__)
    run_and_tell(run, config, RewardModelTrainer.name, "scripts/reward_model.py")


def rank_samples(config: RewardModelConfig, model: RewardModel) -> Table:
    """How well the reward model picks the best of several responses to held-out questions.

    Args:
        config: says which policy answers which questions.
        model: in evaluation mode.
    """
    device = model.score.weight.device
    sampler, tokenizer = load_policy(config.sampler, device, config.dtype), load_tokenizer(config.sampler)
    questions = OnlineConfig(
        model=config.sampler, task=config.task, val_data=config.questions, eval_examples=config.best_of_questions,
        group_size=config.best_of, max_tokens=config.max_tokens, stop=config.stop, seed=config.seed,
    )  # fmt: skip
    score = partial(score_responses, model, load_tokenizer(config.model))
    return best_of_table(
        sample_and_score(
            HFEngine(sampler, tokenizer, progress=True), held_out_questions(questions),
            questions.sampling(config.seed), reward_function(questions), score,
        )
    )  # fmt: skip
