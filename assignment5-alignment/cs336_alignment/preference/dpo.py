"""Training a policy by direct preference optimization."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from cs336_alignment.parallel.config import ChunkedHeadConfig
from cs336_alignment.parallel.launch import run_and_tell
from cs336_alignment.parallel.processes import sharing_processes
from cs336_alignment.parallel.replica import REPLICAS
from cs336_alignment.policy import load_tokenizer, load_trainable_policy
from cs336_alignment.preference.batches import PairBatch, PairSets, load_pair_sets
from cs336_alignment.preference.config import PairConfig
from cs336_alignment.preference.dpo_loss import (
    PreferenceLoss,
    check_loss_settings,
    preference_loss,
)
from cs336_alignment.preference.pair_trainer import PairTrainer
from cs336_alignment.preference.reference import reference_log_probs, response_log_probs
from cs336_alignment.tokenization import pad_token_id
from cs336_alignment.training.config import fitted_setting, parse_config
from cs336_alignment.training.loop import TrainingResult, train
from cs336_alignment.training.replica import Replica
from cs336_basics.settings import setting


@dataclass(frozen=True)
class DPOConfig(PairConfig, ChunkedHeadConfig):
    """Settings of a run; each field's help text is its documentation.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    SMOKE: ClassVar = {"num_pairs": 64, "val_pairs": 16, "batch_size": 16, "num_steps": 3}

    lr: float | None = fitted_setting(1e-4, 1e-6, "highest learning rate")
    eval_every: int | None = fitted_setting(10, 50, "steps between two evaluations; 0 for none but the last")
    reference: str | None = setting(
        None, "model that the policy is tied to: a folder or a name", type=str, shown="the policy as it starts"
    )
    loss: str = setting("dpo", "loss of a pair", choices=get_args(PreferenceLoss))
    beta: float = setting(0.1, "strength of the tie to the reference")
    label_smoothing: float = setting(0.0, "probability that a pair's label is wrong; for the dpo loss")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_loss_settings(self.beta, self.loss, self.label_smoothing)


class DPOTrainer(PairTrainer):
    """Raises what the policy gives to chosen responses over what it gives to rejected ones, relative to a reference.

    Args:
        config: the settings.
        replica: the policy.
        tokenizer: the policy's.
        pairs: for training and validation.
        reference: log-probabilities under the reference, of all these pairs.
    """

    name = "dpo"
    config: DPOConfig

    def __init__(
        self,
        config: DPOConfig,
        replica: Replica,
        tokenizer: PreTrainedTokenizerBase,
        pairs: PairSets,
        reference: Float[Tensor, "pairs 2"],
    ) -> None:
        super().__init__(config, replica, tokenizer, pairs)
        self.reference = reference

    def pair_losses(self, batch: PairBatch) -> tuple[Float[Tensor, " pairs"], dict[str, Float[Tensor, " pairs"]]]:
        policy = response_log_probs(self.replica.forward, batch, self.config.head_chunk_tokens)
        reference = self.reference[torch.from_numpy(batch.indices)].to(policy[0].device).unbind(dim=1)
        config = self.config
        outcome = preference_loss(*policy, *reference, config.beta, config.loss, config.label_smoothing)
        margin = outcome.chosen_reward - outcome.rejected_reward
        return outcome.loss, {
            "accuracy": (margin > 0).float(),
            "margin": margin,
            "chosen_reward": outcome.chosen_reward,
            "rejected_reward": outcome.rejected_reward,
            "chosen_log_prob": policy[0],
            "rejected_log_prob": policy[1],
        }


def make_trainer(config: DPOConfig, progress: bool = True) -> DPOTrainer:
    """This process's trainer, ready for `train`; the log-probabilities under the reference are computed here.

    Raises:
        UsageError: a model or the data cannot be used, or a batch cannot be shared by the processes.
    """
    processes, tokenizer = sharing_processes(config), load_tokenizer(config.model)
    config.check_shares(processes.world_size)
    pairs = load_pair_sets(config, tokenizer, tqdm.write if progress and processes.writes else None)
    reference = reference_log_probs(
        config, config.reference or config.model, pairs.pairs, pad_token_id(tokenizer),
        processes=processes, chunk_tokens=config.head_chunk_tokens, progress=progress,
    )  # fmt: skip
    replica = REPLICAS[config.parallel](load_trainable_policy(config), config)
    return DPOTrainer(config, replica, tokenizer, pairs, reference)


def run(config: DPOConfig, progress: bool = True) -> TrainingResult:
    """Train in this process, alone or as one of several that run the same.

    Args:
        config: the settings; `out` names the run's folder.
        progress: show a progress bar and messages, of the first process.
    """
    return train(make_trainer(config, progress), progress=progress)


def main(argv: Sequence[str] | None = None) -> None:
    """Train a policy on preference pairs by DPO, IPO or conservative DPO."""
    config = parse_config(DPOConfig, argv, program="dpo.py", description=main.__doc__)
    run_and_tell(run, config, "dpo", "scripts/dpo.py")
