"""A batch of rollouts as tensors, its microbatches, and the share of the loss that one of them has."""

from dataclasses import dataclass, fields, replace
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.policy_gradient.aggregation import LossNormalization, token_weights
from cs336_alignment.policy_gradient.kl import KLEstimator, estimate_kl
from cs336_alignment.policy_gradient.losses import ImportanceReweighting, compute_policy_gradient_loss
from cs336_basics.command_line import UsageError


@dataclass(frozen=True)
class RolloutBatch:
    """Responses to prompts, and what an update needs to know about them.

    Attributes:
        input_ids, labels, response_mask: as `tokenize_prompt_and_output` makes them; in a mask of numbers all but 0 is
            True.
        advantages: one per row; raw rewards for a loss without a baseline.
        old_log_probs: of the labels under the policy that wrote the responses, for a loss that reweights.
        reference_log_probs: of the labels under the policy to stay near, for a loss with a KL term.

    Raises:
        UsageError: the shapes do not fit.
    """

    input_ids: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]
    response_mask: Bool[Tensor, "batch seq"]
    advantages: Float[Tensor, " batch"]
    old_log_probs: Float[Tensor, "batch seq"] | None = None
    reference_log_probs: Float[Tensor, "batch seq"] | None = None

    def __post_init__(self) -> None:
        for name, tensor in self._tensors().items():
            expected = self.labels.shape[:1] if name == "advantages" else self.labels.shape
            if tensor.shape != expected:
                raise UsageError(f"{name} has the shape {tuple(tensor.shape)}; the labels ask for {tuple(expected)}")
        object.__setattr__(self, "response_mask", self.response_mask.bool())

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_tokens(self) -> int:
        """Response tokens."""
        return int(self.response_mask.sum())

    def to(self, device: torch.device | str) -> "RolloutBatch":
        """The same on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self._tensors().items()})

    def rows(self, chosen: slice | Int[Tensor, " chosen"]) -> "RolloutBatch":
        """Some of the rows, without the columns that are behind the last response token of them all."""
        tensors = {name: tensor[chosen] for name, tensor in self._tensors().items()}
        columns = tensors["response_mask"].any(dim=0).nonzero()
        width = int(columns.max()) + 1 if len(columns) else 1
        return replace(
            self, **{name: tensor if name == "advantages" else tensor[:, :width] for name, tensor in tensors.items()}
        )

    def microbatches(self, count: int) -> list["RolloutBatch"]:
        """The rows in order, cut into `count` parts that differ by at most one row.

        Raises:
            UsageError: `count` is not in 1 … rows.
        """
        if not 1 <= count <= len(self):
            raise UsageError(
                f"gradient_accumulation_steps is {count}; allowed are 1 to {len(self)}, the rows of the batch"
            )
        # As even as can be: the first parts have one row more.
        bounds = [-(-len(self) * part // count) for part in range(count + 1)]
        return [self.rows(slice(start, stop)) for start, stop in pairwise(bounds)]


@dataclass(frozen=True)
class PolicyGradientLoss:
    """Which loss: the modules `losses`, `aggregation` and `kl` say what the choices mean.

    Attributes:
        kl_coefficient: how much the KL estimate counts; 0 leaves it out of the loss.
        kl_reweighting: multiply the estimate in the loss by the ratio to the policy that wrote the responses.
        chunk_tokens: tokens for which the output head is computed at once, see `get_response_log_probs`.
        on_policy: a batch without `old_log_probs` was written by the policy as it is: its own are the old ones.
    """

    importance_reweighting_method: ImportanceReweighting = "none"
    cliprange: float | None = None
    cliprange_high: float | None = None
    loss_normalization: LossNormalization = "sequence"
    normalization_constant: float | None = None
    kl_coefficient: float = 0.0
    kl_estimator: KLEstimator = "k3"
    kl_reweighting: bool = False
    chunk_tokens: int | None = None
    on_policy: bool = False

    def share(
        self, model: torch.nn.Module, microbatch: RolloutBatch, num_sequences: int, num_tokens: int | Tensor
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """A microbatch's share of a batch's loss and metrics: those of all microbatches add up to the batch's.

        Args:
            model: a causal language model, as for `get_response_log_probs`, or what calls it.
            microbatch: on the model's device.
            num_sequences, num_tokens: of the whole batch (of all processes that share it).

        Returns:
            The loss to backpropagate, and detached: "token_entropy", "clip_fraction" (0 for methods that do not clip)
            and, with reference log-probabilities, "kl": shares of means over the response tokens.

        Raises:
            UsageError: the loss is unknown, or lacks what it needs.
        """
        mask = microbatch.response_mask
        scored = get_response_log_probs(
            model, microbatch.input_ids, microbatch.labels, True, response_mask=mask, chunk_tokens=self.chunk_tokens
        )
        old = microbatch.old_log_probs
        if old is None and self.on_policy:
            old = scored["log_probs"].detach()
        per_token, metadata = compute_policy_gradient_loss(
            microbatch.advantages, scored["log_probs"], self.importance_reweighting_method, old, self.cliprange, mask,
            cliprange_high=self.cliprange_high,
        )  # fmt: skip
        values = {
            "token_entropy": scored["token_entropy"],
            "clip_fraction": metadata.get("clipped", torch.zeros_like(mask)),
        }
        if self.kl_coefficient:
            per_token = per_token + self.kl_coefficient * self._kl(scored["log_probs"], microbatch, old)
        if microbatch.reference_log_probs is not None:
            values["kl"] = estimate_kl(scored["log_probs"].detach(), microbatch.reference_log_probs, self.kl_estimator)
        weights = token_weights(
            mask, num_sequences, num_tokens, self.loss_normalization, self.normalization_constant, per_token.dtype
        )
        return (
            torch.where(mask, per_token * weights, 0).sum(),
            {name: torch.where(mask, value, 0).sum() / num_tokens for name, value in values.items()},
        )

    def _kl(self, log_probs: Tensor, microbatch: RolloutBatch, old: Tensor | None) -> Float[Tensor, "batch seq"]:
        if microbatch.reference_log_probs is None:
            raise UsageError(f"kl_coefficient is {self.kl_coefficient}, which needs reference_log_probs")
        if self.kl_reweighting and old is None:
            raise UsageError("kl_reweighting needs old_log_probs")
        return estimate_kl(
            log_probs, microbatch.reference_log_probs, self.kl_estimator, old if self.kl_reweighting else None
        )
