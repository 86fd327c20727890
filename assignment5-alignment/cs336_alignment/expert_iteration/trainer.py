"""One step of expert iteration (Anthony et al. 2017, arXiv:1705.08439; for language models with a verifier: Zelikman et
al. 2022, "STaR", arXiv:2203.14465; Singh et al. 2023, "Beyond Human Data", arXiv:2312.06585, algorithm 1).

Questions are drawn, several responses to each are sampled from the policy, and the policy is trained on the right ones
by maximum likelihood: the mean over the response tokens of a batch of -log p.
"""

import time
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from cs336_alignment.expert_iteration.config import ExpertIterationConfig
from cs336_alignment.online.batches import batch_of, rows_of_updates
from cs336_alignment.online.collection import Collector, ResponseScores, ScoredRollout, rollout_metrics
from cs336_alignment.online.questions import Question
from cs336_alignment.online.trainer import OnlineTrainer
from cs336_alignment.policy_gradient.batch import PolicyGradientLoss, RolloutBatch
from cs336_alignment.training.replica import Replica

_METRICS = ("loss", "grad_norm", "lr", "token_entropy")


class ExpertIterationTrainer(OnlineTrainer):
    """A run of expert iteration; arguments as for `OnlineTrainer`."""

    name = "expert_iteration"
    config: ExpertIterationConfig

    def __init__(
        self,
        config: ExpertIterationConfig,
        replica: Replica,
        tokenizer: PreTrainedTokenizerBase,
        collector: Collector,
        questions: list[Question],
        held_out: list[Question],
        score: ResponseScores | None = None,
    ) -> None:
        super().__init__(config, replica, tokenizer, collector, questions, held_out, score)
        # With weights of 1, the policy-gradient loss -A log p is the negative log-likelihood.
        self.loss = PolicyGradientLoss(loss_normalization="token", chunk_tokens=config.head_chunk_tokens)
        most = config.questions_per_step * config.group_size * config.epochs_per_step
        self.num_updates = config.num_steps * -(-most // config.train_batch_size)

    def train_step(self) -> dict[str, float]:
        groups = self.collect(self.step, self.config.questions_per_step)
        rollouts = [rollout for group in groups for rollout in group]
        is_kept = self._kept(rollouts)
        self.record(rollouts, kept=is_kept)
        kept = [rollout for rollout, keep in zip(rollouts, is_kept, strict=True) if keep]
        tokens = sum(len(rollout.token_ids) for rollout in rollouts)

        started = time.perf_counter()
        update_metrics = self._learn(kept) if kept else {}
        return {
            **update_metrics,
            **rollout_metrics(rollouts),
            "solved_questions": float(np.mean([any(self._is_right(r) for r in group) for group in groups])),
            "kept_rollouts": len(kept),
            "rollout_seconds": self.collector.seconds,
            "rollout_tokens_per_second": tokens / self.collector.seconds,
            "rollout_tokens": tokens,
            "update_seconds": time.perf_counter() - started,
        }

    def _is_right(self, rollout: ScoredRollout) -> bool:
        return rollout.reward >= self.config.least_reward

    def _kept(self, rollouts: list[ScoredRollout]) -> list[bool]:
        """Which rollouts to train on."""
        seen: set[tuple[str, str]] = set()
        kept = []
        for rollout in rollouts:
            key = (rollout.prompt, rollout.response)
            kept.append(self._is_right(rollout) and (self.config.keep_duplicates or key not in seen))
            seen.add(key)
        return kept

    def _learn(self, kept: list[ScoredRollout]) -> dict[str, float]:
        """The updates of a step; returns their mean metrics."""
        batch = with_blank_row(batch_of(kept, torch.ones(len(kept)), self.tokenizer))
        config = self.config
        parts = rows_of_updates(len(kept), config.train_batch_size, config.epochs_per_step, [config.seed, self.step])
        updates = [self._update(batch, rows) for rows in parts]
        self.collector.weights_changed()
        return {name: float(np.mean([metrics[name] for metrics in updates])) for name in _METRICS}

    def _update(self, batch: RolloutBatch, rows: Int[np.ndarray, " train_batch"]) -> dict[str, float]:
        """One update on some rows, filled up to a number that the processes' microbatches share evenly."""
        parts = self.replica.world_size * self.config.gradient_accumulation_steps
        padded = np.pad(rows, (0, -len(rows) % parts), constant_values=len(batch) - 1)
        return self.update_on_rows(self.loss, batch, padded, len(rows))


def with_blank_row(batch: RolloutBatch) -> RolloutBatch:
    """The batch and, behind it, a row that has no response: it fills microbatches up and adds nothing."""
    chosen = torch.arange(len(batch) + 1) % len(batch)
    larger = batch.rows(chosen)
    is_row = torch.arange(len(batch) + 1) < len(batch)
    return replace(larger, response_mask=larger.response_mask & is_row[:, None])
