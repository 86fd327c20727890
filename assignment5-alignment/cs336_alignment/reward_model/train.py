"""Training a reward model on preference pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from cs336_alignment.online.config import OnlineConfig
from cs336_alignment.online.questions import QUESTION_TASKS, held_out_questions
from cs336_alignment.online.reward_functions import reward_function
from cs336_alignment.policy import load_policy, load_tokenizer, load_trainable_policy
from cs336_alignment.preference.batches import PairBatch, load_pair_sets
from cs336_alignment.preference.config import PairConfig
from cs336_alignment.preference.pair_trainer import PairTrainer
from cs336_alignment.preference.reward_loss import bradley_terry_loss
from cs336_alignment.reward_model.best_of_n import best_of_table, sample_and_score
from cs336_alignment.reward_model.model import RewardModel, save_reward_model
from cs336_alignment.reward_model.report import write_reward_report
from cs336_alignment.reward_model.score import score_responses
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.training.config import parse_config
from cs336_alignment.training.loop import tell, train, with_folder
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.trainer import seed_everything
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

    model: str = setting("default", "model whose body is taken: a Hugging Face folder or name, or `default`")
    lr: float = setting(1e-3, "highest learning rate")
    schedule: str = setting("cosine", "learning rate after the warm-up", choices=("constant", "cosine", "linear"))
    num_pairs: int = setting(8000, "pairs made of the default task, besides those for validation")
    centering: float = setting(0.0, "weight of the loss's second term, which keeps scores near 0")

    best_of: int = setting(8, "responses per question of which the reward model picks the best, in the end; 0 for none")
    best_of_questions: int = setting(64, "questions for that")
    questions: str | None = setting(
        None, "file of these questions", type=str, shown="those of the default task, unless there are --data"
    )
    task: str = setting("default", "form of the file of questions", choices=QUESTION_TASKS)
    sampler: str | None = setting(
        None, "policy that answers them: a folder or a name", type=str, shown="the model that training starts from"
    )
    max_tokens: int = setting(64, "tokens a response has at most")
    stop: str = setting("</answer>", "text that ends a response, and stays in it; empty for none")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("centering", "best_of"):
            self.check_range(name, 0, math.inf)
        for name in ("best_of_questions", "max_tokens"):
            self.check_range(name, 1, math.inf)

    @property
    def has_questions(self) -> bool:
        """Whether responses are sampled and ranked in the end."""
        return self.best_of > 0 and (self.questions is not None or self.data is None)


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
        if self.replica.writes:
            save_reward_model(self.replica.module, self.tokenizer, folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Train a reward model on preference pairs, and say how well it tells better from worse responses."""
    config = parse_config(RewardModelConfig, argv, program="reward_model.py", description=main.__doc__)
    config = with_folder(config, RewardModelTrainer.name)
    tokenizer = load_tokenizer(config.model)
    pairs = load_pair_sets(config, tokenizer)
    backbone = load_trainable_policy(config).base_model
    seed_everything(config.seed)  # the head's first weights
    trainer = RewardModelTrainer(config, Replica(RewardModel(backbone), config), tokenizer, pairs)
    result = train(trainer)
    tell(result, "scripts/reward_model.py")
    trainer.replica.module.eval()
    margins = trainer.validate()["margin"].tolist()
    sources = [pairs.pairs[index].source for index in pairs.valid_indices]
    best_of = rank_samples(config, trainer.replica.module) if config.has_questions else None
    write_reward_report(result.folder, margins, sources, best_of)


def rank_samples(config: RewardModelConfig, model: RewardModel) -> Table:
    """How well the reward model picks the best of several responses to held-out questions.

    Args:
        config: says which policy answers which questions.
        model: in evaluation mode.
    """
    name = config.sampler or config.model
    sampler, tokenizer = load_policy(name, model.score.weight.device, config.dtype), load_tokenizer(name)
    questions = OnlineConfig(
        model=name, task=config.task, valid_data=config.questions, eval_examples=config.best_of_questions,
        group_size=config.best_of, max_tokens=config.max_tokens, stop=config.stop, seed=config.seed,
    )  # fmt: skip
    score = partial(score_responses, model, load_tokenizer(config.model))
    return best_of_table(
        sample_and_score(
            HFEngine(sampler, tokenizer, progress=True), held_out_questions(questions),
            questions.sampling(config.seed), reward_function(questions), score,
        )
    )  # fmt: skip
