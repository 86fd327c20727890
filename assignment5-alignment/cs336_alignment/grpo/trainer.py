"""One step of GRPO (Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, algorithm 1) and of its variants.

Questions are drawn, a group of responses to each is sampled from the policy, rewards become advantages, and the policy
is updated on them once (on-policy) or several times (off-policy, with ratios to the policy that sampled).

What is learned from are the token ids that the engine drew, the end-of-text token included where it was drawn; behind
a stop string none was. The old log-probabilities are computed anew by the training forward pass before the first
update, not taken from the engine: so a ratio is exactly 1 until the policy has moved. Where the engine's own
probabilities differ (another kernel or type as in vLLM, a temperature other than 1, a nucleus), the difference is not
corrected for.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cs336_alignment.evaluation_mode import evaluation_mode
from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.online.batches import batch_of, rows_of_updates, share_of
from cs336_alignment.online.collection import Collector, ResponseScores, ScoredRollout, rollout_metrics
from cs336_alignment.online.questions import Question
from cs336_alignment.online.trainer import OnlineTrainer
from cs336_alignment.policy_gradient.advantages import (
    compute_group_normalized_rewards,
    informative_groups,
    overlong_penalty,
)
from cs336_alignment.policy_gradient.batch import RolloutBatch
from cs336_alignment.training.replica import Replica


class GRPOTrainer(OnlineTrainer):
    """A GRPO run; arguments as for `OnlineTrainer`, and

    Args:
        reference: the policy from whose distribution the KL divergence is measured; None without that term.
    """

    name = "grpo"
    config: GRPOConfig

    def __init__(
        self,
        config: GRPOConfig,
        replica: Replica,
        tokenizer: PreTrainedTokenizerBase,
        collector: Collector,
        questions: list[Question],
        held_out: list[Question],
        reference: nn.Module | None = None,
        score: ResponseScores | None = None,
    ) -> None:
        super().__init__(config, replica, tokenizer, collector, questions, held_out, score)
        self.reference = reference
        self.loss = config.loss
        self.num_updates = config.num_steps * config.updates_per_step
        self.draws = 0

    def extra_state(self) -> dict[str, Any]:
        return {"draws": self.draws}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.draws = state["draws"]

    def train_step(self) -> dict[str, float]:
        rollouts, sampling_metrics = self._sample()
        dtype = torch.promote_types(self.policy.dtype, torch.float32)
        rewards = torch.tensor([rollout.reward for rollout in rollouts], dtype=dtype)
        if self.config.overlong_tokens:
            lengths = torch.tensor([len(rollout.token_ids) for rollout in rollouts])
            rewards = rewards + overlong_penalty(lengths, self.config.max_tokens, self.config.overlong_tokens)
        pieces = self.config.pieces
        advantages, advantage_metrics = compute_group_normalized_rewards(
            rewards, self.config.group_size, pieces.baseline, self.config.advantage_eps, pieces.advantage_normalizer
        )
        self.record(rollouts, advantage=advantages.tolist())

        started = time.perf_counter()
        update_metrics = self._learn(batch_of(rollouts, advantages, self.tokenizer))
        self.collector.weights_changed()
        return {
            **update_metrics,
            **rollout_metrics(rollouts),
            **advantage_metrics,
            **sampling_metrics,
            "update_seconds": time.perf_counter() - started,
        }

    def _sample(self) -> tuple[list[ScoredRollout], dict[str, float]]:
        """The rollouts of a step, groups one behind the other, and how it went to get them.

        Dynamic sampling (Yu et al. 2025, "DAPO", arXiv:2503.14476, eq. 11) leaves out groups whose rewards are all the
        same, as long as further batches of questions may be drawn.
        """
        config = self.config
        num_groups = config.rollout_batch_size // config.group_size
        kept: list[list[ScoredRollout]] = []
        left_out: list[list[ScoredRollout]] = []
        seconds, tokens = 0.0, 0
        for _ in range(config.dynamic_sampling):
            groups = self.collect(self.draws, num_groups)
            self.draws += 1
            seconds += self.collector.seconds
            tokens += sum(len(rollout.token_ids) for group in groups for rollout in group)
            rewards = torch.tensor([[rollout.reward for rollout in group] for group in groups])
            informative = informative_groups(rewards.flatten(), config.group_size).tolist()
            for group, is_informative in zip(groups, informative, strict=True):
                (kept if is_informative or config.dynamic_sampling == 1 else left_out).append(group)
            if len(kept) >= num_groups:
                break
        chosen = (kept + left_out)[:num_groups]
        metrics = {"rollout_seconds": seconds, "rollout_tokens_per_second": tokens / seconds, "rollout_tokens": tokens}
        return [rollout for group in chosen for rollout in group], metrics

    def _learn(self, batch: RolloutBatch) -> dict[str, float]:
        """The updates of a step; returns their mean metrics."""
        config = self.config
        if config.updates_per_step > 1 and config.pieces.importance_reweighting != "none":
            batch = replace(batch, old_log_probs=self._score(self.replica.forward, batch))
        if self.reference is not None:
            batch = replace(batch, reference_log_probs=self._score(self.reference, batch))
        updates = [self.update_on_rows(self.loss, batch, rows, len(rows)) for rows in self._training_rows()]
        return {name: float(np.mean([metrics[name] for metrics in updates])) for name in updates[0]}

    def _training_rows(self) -> Iterator[Int[np.ndarray, " train_batch"]]:
        """The rows of each update."""
        config = self.config
        if config.updates_per_step == 1:
            return iter([np.arange(config.rollout_batch_size)])
        epochs, seed = config.epochs_per_rollout_batch, [config.seed, self.step]
        return rows_of_updates(config.rollout_batch_size, config.train_batch_size, epochs, seed)

    @torch.no_grad()
    def _score(self, model: nn.Module, batch: RolloutBatch) -> Float[Tensor, "rollouts seq"]:
        """The log-probability of each response token under a model; every process computes its share."""
        config = self.config
        rows = share_of(batch, np.arange(len(batch)), self.replica)
        number = config.gradient_accumulation_steps * (config.rollout_batch_size // config.train_batch_size)
        scores = []
        with self.autocast(), evaluation_mode(model):
            for part in batch.rows(rows).microbatches(number):
                part = part.to(self.device)
                scored = get_response_log_probs(
                    model, part.input_ids, part.labels, response_mask=part.response_mask,
                    chunk_tokens=config.head_chunk_tokens,
                )  # fmt: skip
                scores += scored["log_probs"].cpu().unbind()
        gathered = self.replica.gather(list(zip(rows.tolist(), scores, strict=True)))
        result = scores[0].new_zeros(batch.labels.shape)
        for row, values in gathered:
            result[row, : len(values)] = values
        return result
