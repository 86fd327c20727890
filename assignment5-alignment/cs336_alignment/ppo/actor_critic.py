"""A policy and the value function that is learned beside it: V(s_t), the reward still to come after t tokens."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from cs336_alignment.log_probs import PLAIN_HEADS, body_and_head, log_probs_of_hidden_states
from cs336_alignment.parallel.replica import DataParallelReplica
from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.replica import Replica
from cs336_basics.command_line import UsageError
from cs336_basics.model.modules import Linear


class TokenEstimates(NamedTuple):
    """What both parts say of each response token, 0 elsewhere.

    Attributes:
        log_probs: of the token, in nats.
        entropy: of the distribution it was drawn from, in nats.
        values: the value before it.
    """

    log_probs: Float[Tensor, "batch seq"]
    entropy: Float[Tensor, "batch seq"]
    values: Float[Tensor, "batch seq"]


class ActorCritic(nn.Module):
    """Policy and value function.

    The value is linear in the last hidden state, in fp32 whatever the type of the body, and starts at 0.

    Args:
        policy: the language model.
        critic: a body of its own for the value function; None shares the policy's, whose gradients then come from both
            losses.
        chunk_tokens: tokens for which the output head is computed at once; None computes all.

    Raises:
        UsageError: the policy's logits are not known to be a plain head of its last hidden states.
    """

    def __init__(
        self, policy: PreTrainedModel, critic: PreTrainedModel | None = None, chunk_tokens: int | None = None
    ) -> None:
        super().__init__()
        if body_and_head(policy) is None:
            raise UsageError(
                f"model type {policy.config.model_type} is not supported; allowed are {', '.join(sorted(PLAIN_HEADS))}"
            )
        self.policy, self.critic, self.chunk_tokens = policy, critic, chunk_tokens
        d_model = (critic or policy).get_input_embeddings().weight.shape[1]
        self.value_head = Linear(d_model, 1, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)

    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"],
        labels: Int[Tensor, "batch seq"],
        response_mask: Bool[Tensor, "batch seq"],
    ) -> TokenEstimates:
        """Estimates for the labels that the mask selects.

        Args:
            input_ids, labels, response_mask: as `tokenize_prompt_and_output` makes them. The value before a label is
                read off the input that it follows.
        """
        body, head = body_and_head(self.policy)
        hidden = body(input_ids, use_cache=False).last_hidden_state[response_mask]
        log_probs, entropy = log_probs_of_hidden_states(
            hidden, head, labels[response_mask], with_entropy=True, chunk_tokens=self.chunk_tokens
        )
        if self.critic is not None:
            hidden = self.critic(input_ids, use_cache=False).last_hidden_state[response_mask]
        with torch.autocast(hidden.device.type, enabled=False):
            values = self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1)
        return TokenEstimates(
            *(
                estimate.new_zeros(labels.shape).masked_scatter(response_mask, estimate)
                for estimate in (log_probs, entropy, values)
            )
        )


class ActorCriticReplica(Replica):
    """The trained pair; what samples rollouts sees the policy alone."""

    module: ActorCritic

    def __init__(self, module: ActorCritic, config: TrainingConfig) -> None:
        super().__init__(module, config)
        self.wrapped = module.policy

    @property
    def policy(self) -> PreTrainedModel:
        """The language model."""
        return self.module.policy


class DataParallelActorCritic(ActorCriticReplica, DataParallelReplica):
    """The pair in several processes, each of which holds both whole."""


ACTOR_CRITIC_REPLICAS: dict[str, type[ActorCriticReplica]] = {
    "none": ActorCriticReplica,
    "ddp": DataParallelActorCritic,
}
"""By the name that `--parallel` takes."""
