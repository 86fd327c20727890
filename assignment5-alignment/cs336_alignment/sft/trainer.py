"""Supervised fine-tuning: maximizing the likelihood of given tokens."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.sft.answers import AnswerCheck
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.sft.examples import TokenBatch, TokenExamples
from cs336_alignment.training.batch_order import batch_indices
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.trainer import Trainer
from cs336_alignment.training.update import Metrics


def likelihood_loss(
    log_probs: Float[Tensor, "batch seq"], response_mask: Bool[Tensor, "batch seq"], divisor: float
) -> Float[Tensor, ""]:
    """The negative log-likelihood of the tokens that count, summed and divided.

    With the number of such tokens in the whole batch as the divisor it is the mean over them; with the batch size times
    a constant it is that of the Spring 2025 handout.
    """
    return -torch.where(response_mask, log_probs, 0).sum() / divisor


class SFTTrainer(Trainer):
    """The trainer of supervised fine-tuning; a step is one update.

    Args:
        config: the settings.
        replica: the policy.
        tokenizer: the policy's.
        train, valid: examples; None for no validation loss.
        answers: answers held-out questions in evaluations; None for none.

    Raises:
        UsageError: a batch cannot be divided evenly.
    """

    name = "sft"
    config: SFTConfig

    def __init__(
        self,
        config: SFTConfig,
        replica: Replica,
        tokenizer: PreTrainedTokenizerBase,
        train: TokenExamples,
        valid: TokenExamples | None = None,
        answers: AnswerCheck | None = None,
    ) -> None:
        super().__init__(config, replica, tokenizer)
        config.check_shares(replica.world_size)
        self.train, self.valid, self.answers = train, valid, answers
        self.num_steps = config.num_steps or max(1, math.ceil(config.epochs * len(train) / config.batch_size))
        self.num_updates = self.num_steps

    def train_step(self) -> dict[str, float]:
        config, replica = self.config, self.replica
        indices = batch_indices(self.step, len(self.train), config.batch_size, config.seed)
        num_targets = self.train.num_targets(indices)
        constant = config.normalize_constant * config.batch_size
        divisor = num_targets if config.loss_normalization == "token" else constant
        mine = replica.share(indices)
        # Examples of like length share a microbatch, to pad little; the longest come first, to run out of memory at
        # once or never.
        by_length = mine[np.argsort(-self.train.lengths(mine), kind="stable")]

        def loss_share(part: np.ndarray) -> tuple[Float[Tensor, ""], Metrics]:
            batch = self.train.batch(part).to(self.device)
            log_probs = self._log_probs(batch)["log_probs"]
            nll = likelihood_loss(log_probs.detach(), batch.response_mask, num_targets)
            return likelihood_loss(log_probs, batch.response_mask, divisor), {"token_nll": nll}

        metrics = self.update(np.split(by_length, config.gradient_accumulation_steps), loss_share)
        return {**metrics, "target_tokens": num_targets, "epoch": (self.step + 1) * config.batch_size / len(self.train)}

    def _log_probs(self, batch: TokenBatch, with_entropy: bool = False) -> dict[str, Float[Tensor, "batch seq"]]:
        return get_response_log_probs(
            self.replica.forward,
            batch.input_ids,
            batch.labels,
            with_entropy,
            response_mask=batch.response_mask,
            chunk_tokens=self.config.head_chunk_tokens,
        )

    def evaluate(self) -> dict[str, float]:
        """The validation loss, and what answers to held-out questions are worth."""
        metrics = {} if self.valid is None else self._validation()
        if self.answers is not None:
            metrics |= self.answers.evaluate(self.step)
        return metrics

    @torch.no_grad()
    def _validation(self) -> dict[str, float]:
        """The mean loss and entropy over the validation examples' tokens that count, in nats."""
        # Every process measures all examples: with FSDP they must all make the same forward passes.
        rows = np.arange(min(len(self.valid), self.config.val_examples or len(self.valid)))
        rows = rows[np.argsort(-self.valid.lengths(rows), kind="stable")]
        totals = {"log_probs": 0.0, "token_entropy": 0.0}
        at_once = self.config.batch_size // (self.config.gradient_accumulation_steps * self.replica.world_size)
        for part in np.array_split(rows, math.ceil(len(rows) / at_once)):
            batch = self.valid.batch(part).to(self.device)
            with self.autocast():
                values = self._log_probs(batch, with_entropy=True)
            for name in totals:
                totals[name] += values[name].sum().item()
        num_targets = self.valid.num_targets(rows)
        return {
            "val_loss": -totals["log_probs"] / num_targets,
            "val_token_entropy": totals["token_entropy"] / num_targets,
        }

    def open_records(self, folder: Path, resume_step: int | None) -> None:
        if self.answers is not None:
            self.answers.open_records(folder, resume_step)

    def close(self) -> None:
        if self.answers is not None:
            self.answers.close()
