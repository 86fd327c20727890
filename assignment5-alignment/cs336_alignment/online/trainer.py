"""What the trainers share that learn from their own rollouts."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cs336_alignment.online.batches import share_of
from cs336_alignment.online.collection import (
    Collector,
    ResponseScores,
    ScoredRollout,
    derived_seed,
    greedy_or_sampled,
    rollout_metrics,
)
from cs336_alignment.online.config import OnlineConfig
from cs336_alignment.online.questions import Question
from cs336_alignment.policy_gradient.batch import PolicyGradientLoss, RolloutBatch
from cs336_alignment.rollout_log.reading import ROLLOUTS_NAME
from cs336_alignment.training.batch_order import batch_indices
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.trainer import Trainer
from cs336_alignment.training.update import Metrics
from cs336_basics.run_log import RunLog, SilentLog

_EVALUATION = 1
"""Sets the seeds of evaluations apart from those of training."""


class OnlineTrainer(Trainer):
    """A trainer whose step begins with rollouts of the policy as it is.

    Args:
        config: the settings.
        replica: the policy.
        tokenizer: the policy's.
        collector: samples and scores.
        questions: to train on.
        held_out: to evaluate on; may be none.
        score: what replaces the reward function's reward in training; None keeps it.
    """

    config: OnlineConfig

    def __init__(
        self,
        config: OnlineConfig,
        replica: Replica,
        tokenizer: PreTrainedTokenizerBase,
        collector: Collector,
        questions: list[Question],
        held_out: list[Question],
        score: ResponseScores | None = None,
    ) -> None:
        super().__init__(config, replica, tokenizer)
        self.collector, self.questions, self.held_out, self.score = collector, questions, held_out, score
        self.num_steps = config.num_steps
        self.records: RunLog | None = None

    def collect(self, draw: int, num_questions: int) -> list[list[ScoredRollout]]:
        """Rollouts for the batch of questions number `draw`, a group for each question."""
        indices = batch_indices(draw, len(self.questions), num_questions, self.config.seed)
        batch = [self.questions[index] for index in indices]
        sampling = self.config.sampling(derived_seed(self.config.seed, draw))
        return self.collector.collect(batch, sampling, self.score)

    def update_on_rows(
        self, loss: PolicyGradientLoss, batch: RolloutBatch, rows: Int[np.ndarray, " rows"], num_sequences: int
    ) -> dict[str, float]:
        """One update on some rows of a batch, of which this process computes its share; see `update`.

        Args:
            loss: of these rows.
            batch: the same in every process.
            rows: a number of them that the processes' microbatches share evenly.
            num_sequences: how many of them are responses, and do not merely fill up.
        """
        num_tokens = batch.rows(torch.from_numpy(rows)).num_tokens
        own = batch.rows(share_of(batch, rows, self.replica))

        def loss_share(microbatch: RolloutBatch) -> tuple[Float[Tensor, ""], Metrics]:
            return loss.share(self.replica.forward, microbatch.to(self.device), num_sequences, num_tokens)

        return self.update(own.microbatches(self.config.gradient_accumulation_steps), loss_share)

    def evaluate(self) -> dict[str, float]:
        """Answers to the held-out questions: mean rewards and lengths."""
        if not self.held_out:
            return {}
        sampling = greedy_or_sampled(
            self.config.sampling(seed=0),
            self.config.eval_temperature,
            derived_seed(self.config.seed, self.step, _EVALUATION),
        )
        groups = self.collector.collect(self.held_out, sampling)
        metrics = rollout_metrics([rollout for group in groups for rollout in group])
        return {f"eval_{name}": value for name, value in metrics.items()}

    def open_records(self, folder: Path, resume_step: int | None) -> None:
        self.records = RunLog(folder, resume_step, ROLLOUTS_NAME) if self.replica.writes else SilentLog(folder)

    def record(self, rollouts: list[ScoredRollout], **columns: list[Any]) -> None:
        """Write rollouts of this step, with a value of each column for each of them."""
        for index, rollout in enumerate(rollouts):
            more = {name: values[index] for name, values in columns.items()}
            self.records.write(rollout.record(self.step + 1, **more))

    def restore_checkpoint(self, path: Path) -> dict[str, Any]:
        checkpoint = super().restore_checkpoint(path)
        self.collector.weights_changed()
        return checkpoint

    def close(self) -> None:
        self.collector.close()
        if self.records is not None:
            self.records.close()
