"""What the trainers share that learn from preference pairs."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cs336_alignment.preference.batches import PairBatch, PairSets, batches_by_length, pair_batch, split_by_length
from cs336_alignment.preference.config import PairConfig
from cs336_alignment.tokenization import pad_token_id
from cs336_alignment.training.batch_order import batch_indices
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.trainer import Trainer
from cs336_alignment.training.update import Metrics

BEST_FOLDER = "best_model"

PairValues = Float[Tensor, " pairs"]


class PairTrainer(Trainer):
    """A trainer whose loss is a mean over pairs; the model that does best in validation is kept in `best_model`.

    Args:
        config: the settings.
        replica: what is trained.
        tokenizer: its own.
        pairs: for training and validation.
    """

    config: PairConfig

    def __init__(
        self, config: PairConfig, replica: Replica, tokenizer: PreTrainedTokenizerBase, pairs: PairSets
    ) -> None:
        super().__init__(config, replica, tokenizer)
        self.pairs, self.pad_id = pairs, pad_token_id(tokenizer)
        self.num_steps = self.num_updates = config.steps_for(pairs.num_train)
        self._best: list[float] | None = None

    @abstractmethod
    def pair_losses(self, batch: PairBatch) -> tuple[PairValues, dict[str, PairValues]]:
        """The loss of each pair, and what else is logged of it: "accuracy", 1 where the chosen response comes first,
        and any other."""

    def train_step(self) -> dict[str, float]:
        pairs, config = self.pairs, self.config
        indices = batch_indices(self.step, pairs.num_train, config.batch_size, config.seed)
        parts = split_by_length(pairs.pairs, indices, config.gradient_accumulation_steps)
        mine = [self.replica.share(part) for part in parts]

        def share(batch: PairBatch) -> tuple[Float[Tensor, ""], Metrics]:
            losses, values = self.pair_losses(batch.to(self.device))
            return losses.sum() / len(indices), {name: value.sum() / len(indices) for name, value in values.items()}

        return self.update([pair_batch(pairs.pairs, part, self.pad_id) for part in mine], share)

    @torch.no_grad()
    def validate(self) -> dict[str, PairValues]:
        """Every value of `pair_losses`, and "loss", for the validation pairs, in their order; on the CPU."""
        pairs, collected = self.pairs, []
        for batch in batches_by_length(
            pairs.pairs, pairs.val_indices, self.config.eval_batch_size, self.pad_id, self.replica
        ):
            with self.autocast():
                losses, values = self.pair_losses(batch.to(self.device))
            on_cpu = {name: value.float().cpu() for name, value in {"loss": losses, **values}.items()}
            collected.append((batch.indices, on_cpu))
        collected = self.replica.gather(collected)
        _, order = np.unique(np.concatenate([indices for indices, _ in collected]), return_index=True)
        return {name: torch.cat([values[name] for _, values in collected])[order] for name in collected[0][1]}

    def evaluate(self) -> dict[str, float]:
        metrics = {f"val_{name}": values.mean().item() for name, values in self.validate().items()}
        rank = [metrics["val_accuracy"], -metrics["val_loss"]]
        if self.step and (self._best is None or rank > self._best):
            self._best = rank
            self.save_model(Path(self.config.out) / BEST_FOLDER)
        return metrics

    def extra_state(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self._best = state["best"]
