"""What a step of PPO learns from: rollouts, and what was known of their tokens when they were sampled."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PPOBatch:
    """Rollouts as tensors, padded on the right.

    Attributes:
        input_ids, labels, response_mask: as `tokenize_prompt_and_output` makes them.
        old_log_probs, old_values: of the labels and before them, under the policy and the value function at the time.
        advantages, returns: of the labels.
    """

    input_ids: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]
    response_mask: Bool[Tensor, "batch seq"]
    old_log_probs: Float[Tensor, "batch seq"]
    old_values: Float[Tensor, "batch seq"]
    advantages: Float[Tensor, "batch seq"]
    returns: Float[Tensor, "batch seq"]

    def rows(self, chosen: Int[Tensor, " chosen"]) -> "PPOBatch":
        """Some of the rows, without the columns behind the last response token of them all."""
        width = int(self.response_mask[chosen].any(dim=0).nonzero().max()) + 1
        return PPOBatch(*(getattr(self, field.name)[chosen, :width] for field in fields(self)))

    def to(self, device: torch.device) -> "PPOBatch":
        """The same on a device."""
        return PPOBatch(*(getattr(self, field.name).to(device) for field in fields(self)))
