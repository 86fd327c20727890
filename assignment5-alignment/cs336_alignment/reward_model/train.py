"""Training a reward model on preference pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from cs336_alignment.policy import load_tokenizer, load_trainable_policy
from cs336_alignment.preference.batches import PairBatch, load_pair_sets
from cs336_alignment.preference.config import PairConfig
from cs336_alignment.preference.pair_trainer import PairTrainer
from cs336_alignment.preference.reward_loss import bradley_terry_loss
from cs336_alignment.reward_model.model import RewardModel, save_reward_model
from cs336_alignment.reward_model.report import write_reward_report
from cs336_alignment.training.config import parse_config
from cs336_alignment.training.loop import tell, train, with_folder
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.trainer import seed_everything
from cs336_basics.settings import setting


@dataclass(frozen=True)
class RewardModelConfig(PairConfig):
    """Settings of a run; each field's help text is its documentation.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    SMOKE: ClassVar = {"num_pairs": 64, "val_pairs": 16, "batch_size": 16, "num_steps": 3}

    model: str = setting("default", "model whose body is taken: a Hugging Face folder or name, or `default`")
    lr: float = setting(3e-4, "highest learning rate")
    centering: float = setting(0.0, "weight of the loss's second term, which keeps scores near 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_range("centering", 0, float("inf"))


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
    write_reward_report(result.folder, margins, sources)
