"""Answering held-out questions during supervised fine-tuning: are the responses right, and what do they look like?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.online.batches import batch_of
from cs336_alignment.online.collection import Collector, ScoredRollout, derived_seed, rollout_metrics
from cs336_alignment.online.questions import Question
from cs336_alignment.rollout_log.reading import ROLLOUTS_NAME
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.update import autocast_to
from cs336_basics.run_log import RunLog, SilentLog


class AnswerCheck:
    """Samples responses to held-out questions with the policy as it is, scores them, and writes them down.

    Args:
        config: the settings.
        replica: the policy; each process holds it whole.
        tokenizer: the policy's.
        collector: samples and scores.
        questions: to answer.
    """

    def __init__(
        self,
        config: SFTConfig,
        replica: Replica,
        tokenizer: PreTrainedTokenizerBase,
        collector: Collector,
        questions: Sequence[Question],
    ) -> None:
        self.config, self.replica, self.tokenizer = config, replica, tokenizer
        self.collector, self.questions = collector, questions
        self.records: RunLog | None = None

    def open_records(self, folder: Path, resume_step: int | None) -> None:
        """Open `rollouts.jsonl`; entries after `resume_step` are dropped."""
        if self.replica.writes:
            self.records = RunLog(folder, resume_step, ROLLOUTS_NAME)
        else:
            self.records = SilentLog(folder, ROLLOUTS_NAME)

    def evaluate(self, step: int) -> dict[str, float]:
        """Mean rewards, lengths (of right and of wrong responses) and entropy per token; the responses are recorded.

        Args:
            step: steps done.
        """
        self.collector.weights_changed()
        groups = self.collector.collect(self.questions, self.config.sampling(derived_seed(self.config.seed, step)))
        rollouts = [rollout for group in groups for rollout in group]
        entropies = self._entropies(rollouts)
        if self.records is not None:
            for rollout, entropy in zip(rollouts, entropies, strict=True):
                self.records.write(rollout.record(step, token_entropy=entropy))
        metrics = {**rollout_metrics(rollouts), "token_entropy": float(np.mean(entropies))}
        return {f"eval_{name}": value for name, value in metrics.items()}

    @torch.no_grad()
    def _entropies(self, rollouts: Sequence[ScoredRollout]) -> list[float]:
        """The mean entropy of the policy's predictions over each response's tokens, in nats."""
        device = self.replica.device
        entropies = np.zeros(len(rollouts))
        rows = np.argsort([-len(rollout.token_ids) for rollout in rollouts], kind="stable")
        for part in np.array_split(rows, -(-len(rows) // self.config.generation_batch_size)):
            batch = batch_of([rollouts[row] for row in part], torch.zeros(len(part)), self.tokenizer)
            mask = batch.response_mask.to(device)
            with autocast_to(self.config.autocast, device):
                scored = get_response_log_probs(
                    self.replica.forward,
                    batch.input_ids.to(device),
                    batch.labels.to(device),
                    True,
                    response_mask=mask,
                    chunk_tokens=self.config.head_chunk_tokens,
                )
            entropies[part] = (scored["token_entropy"].sum(1) / mask.sum(1)).cpu().numpy()
        return entropies.tolist()

    def close(self) -> None:
        """Close the engine and the file."""
        self.collector.close()
        if self.records is not None:
            self.records.close()
