"""One step of PPO on a language model (Schulman et al. 2017, arXiv:1707.06347; Ziegler et al. 2019, arXiv:1909.08593).

Responses are sampled and scored; a penalty on each token ties the policy to a reference; advantages are estimated with
the value function as it is. Then policy and value function learn from these rollouts for some epochs of minibatches:

    loss = mean over response tokens of   -min(r A, clip(r) A) + c_v value loss - c_e entropy
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cs336_alignment.evaluation_mode import evaluation_mode
from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.online.batches import batch_of, longest_first, rows_of_updates
from cs336_alignment.online.collection import Collector, ResponseScores, ScoredRollout, rollout_metrics
from cs336_alignment.online.questions import Question
from cs336_alignment.online.trainer import OnlineTrainer
from cs336_alignment.policy_gradient.batch import RolloutBatch
from cs336_alignment.policy_gradient.losses import clipped_surrogate
from cs336_alignment.ppo.actor_critic import ActorCriticReplica, TokenEstimates
from cs336_alignment.ppo.advantages import explained_variance, generalized_advantages, whiten
from cs336_alignment.ppo.batch import PPOBatch
from cs336_alignment.ppo.config import PPOConfig
from cs336_alignment.ppo.kl_control import adapted_coefficient
from cs336_alignment.ppo.losses import clipped_value_loss, token_rewards
from cs336_alignment.training.update import Metrics


class PPOTrainer(OnlineTrainer):
    """A PPO run; arguments as for `OnlineTrainer`, and

    Args:
        replica: of an `ActorCritic`.
        reference: what the KL divergence is measured from: a context in which to call it, and the model; None for no
            penalty.
    """

    name = "ppo"
    config: PPOConfig
    replica: ActorCriticReplica

    def __init__(
        self,
        config: PPOConfig,
        replica: ActorCriticReplica,
        tokenizer: PreTrainedTokenizerBase,
        collector: Collector,
        questions: list[Question],
        held_out: list[Question],
        reference: tuple[Callable[[], AbstractContextManager], nn.Module] | None = None,
        score: ResponseScores | None = None,
    ) -> None:
        super().__init__(config, replica, tokenizer, collector, questions, held_out, score)
        self.reference = reference
        self.num_updates = config.num_steps * config.updates_per_step
        self.kl_coefficient = config.kl_coefficient

    def train_step(self) -> dict[str, float]:
        groups = self.collect(self.step, self.config.rollout_batch_size // self.config.group_size)
        rollouts = [rollout for group in groups for rollout in group]
        batch, metrics = self._with_advantages(rollouts)
        lengths = batch.response_mask.sum(dim=1)
        self.record(rollouts, advantage=(batch.advantages.sum(dim=1) / lengths).tolist())
        config = self.config
        epochs, seed = config.epochs_per_rollout_batch, [config.seed, self.step]
        parts = rows_of_updates(len(rollouts), config.train_batch_size, epochs, seed)
        updates = [self._update(batch.rows(torch.from_numpy(rows))) for rows in parts]
        self.collector.weights_changed()
        metrics |= {name: float(np.mean([update[name] for update in updates])) for name in updates[0]}
        if self.config.kl_target is not None:
            self.kl_coefficient = adapted_coefficient(self.kl_coefficient, metrics["kl"], self.config.kl_target)
        return {**metrics, **rollout_metrics(rollouts), "rollout_seconds": self.collector.seconds}

    def _with_advantages(self, rollouts: Sequence[ScoredRollout]) -> tuple[PPOBatch, dict[str, float]]:
        """The step's batch, and what is known of it before learning; all on the CPU."""
        config = self.config
        scores = torch.tensor([rollout.reward for rollout in rollouts])
        batch = batch_of(rollouts, scores, self.tokenizer)
        old, reference_log_probs = self._estimates(batch)
        mask = batch.response_mask
        rewards = token_rewards(scores, old.log_probs, reference_log_probs, mask, self.kl_coefficient)
        advantages, returns = generalized_advantages(rewards, old.values, mask, config.gamma, config.gae_lambda)
        kl = ((old.log_probs - reference_log_probs) * mask).sum(dim=1).mean()
        metrics = {
            "kl": kl.item(),
            "kl_coefficient": self.kl_coefficient,
            "value": old.values[mask].mean().item(),
            "return": returns[mask].mean().item(),
            "explained_variance": explained_variance(old.values, returns, mask).item(),
            "advantage_std": advantages[mask].std(correction=0).item(),
        }
        if not config.keep_advantages:
            advantages = whiten(advantages, mask)
        tokens = (batch.input_ids, batch.labels, mask)
        return PPOBatch(*tokens, old.log_probs, old.values, advantages, returns), metrics

    @torch.no_grad()
    def _estimates(self, batch: RolloutBatch) -> tuple[TokenEstimates, Float[Tensor, "batch seq"]]:
        """What policy and value function say of the rollouts, and the log-probabilities under the reference (those of
        the policy if there is none); without dropout."""
        module, config = self.replica.module, self.config
        size = max(1, config.train_batch_size // config.gradient_accumulation_steps)
        dtype = torch.promote_types(self.policy.dtype, torch.float32)
        found = torch.zeros(len(TokenEstimates._fields) + 1, *batch.labels.shape, dtype=dtype)
        with self.autocast(), evaluation_mode(module):
            for rows in self.replica.share(torch.arange(len(batch))).split(size):
                part = batch.rows(rows).to(self.device)
                tokens, width = (part.input_ids, part.labels, part.response_mask), part.labels.shape[1]
                estimates = module(*tokens)
                if self.reference is not None:
                    as_reference, model = self.reference
                    with as_reference():
                        scored = get_response_log_probs(
                            model, *tokens[:2], response_mask=tokens[2], chunk_tokens=config.head_chunk_tokens
                        )
                    estimates = (*estimates, scored["log_probs"])
                for whole, estimate in zip(found, estimates, strict=False):
                    whole[rows, :width] = estimate.to(whole)
        # Rows of other processes are 0 here.
        *old, reference_log_probs = self.replica.sum_over_processes(found.to(self.device)).cpu()
        return TokenEstimates(*old), old[0] if self.reference is None else reference_log_probs

    def _update(self, minibatch: PPOBatch) -> dict[str, float]:
        num_tokens = int(minibatch.response_mask.sum())
        parts = longest_first(minibatch.response_mask).tensor_split(self.config.gradient_accumulation_steps)
        return self.update(
            [minibatch.rows(self.replica.share(part)) for part in parts],
            lambda part: self._loss_share(part.to(self.device), num_tokens),
        )

    def _loss_share(self, part: PPOBatch, num_tokens: int) -> tuple[Float[Tensor, ""], Metrics]:
        """A microbatch's share of the loss of an update on so many response tokens."""
        config = self.config
        now: TokenEstimates = self.replica.forward(part.input_ids, part.labels, part.response_mask)
        log_ratio = now.log_probs - part.old_log_probs
        policy_loss, clipped = clipped_surrogate(log_ratio.exp(), part.advantages, config.cliprange)
        value_loss = clipped_value_loss(now.values, part.old_values, part.returns, config.value_cliprange or math.inf)
        loss = policy_loss + config.value_coefficient * value_loss
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * now.entropy

        def share(values: Tensor) -> Float[Tensor, ""]:
            return (values * part.response_mask).sum() / num_tokens

        return share(loss), {
            "policy_loss": share(policy_loss.detach()),
            "value_loss": share(value_loss.detach()),
            "token_entropy": share(now.entropy.detach()),
            "clip_fraction": share(clipped.float()),
            # Of the sampling policy from the present one, by the estimator that is never negative.
            "update_kl": share((log_ratio.exp() - 1 - log_ratio).detach()),
        }

    def extra_state(self) -> dict[str, Any]:
        return {"kl_coefficient": self.kl_coefficient}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.kl_coefficient = state["kl_coefficient"]
