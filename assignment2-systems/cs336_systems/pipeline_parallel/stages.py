"""Dividing a Transformer language model into consecutive stages of about the same cost."""

from functools import cache

import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from cs336_basics.accounting import forward_flops
from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM, TransformerConfig
from cs336_systems.tensor_parallel.layers import VocabParallelEmbedding


def split_layers(config: TransformerConfig, num_stages: int) -> list[range]:
    """Which Transformer blocks each stage holds, so that the costliest stage costs as little as possible.

    Costs are floating-point operations: of a block, and of the output head, which the last stage has besides its
    blocks (with a large vocabulary it may have no block at all). The embedding, in the first stage, costs none.

    Args:
        config: the model's shape.
        num_stages: how many stages to make.

    Raises:
        UsageError: there are more stages than layers, counting the output head as one.
    """
    if not 1 <= num_stages <= config.num_layers + 1:
        raise UsageError(
            f"{num_stages} pipeline stages cannot divide {config.num_layers} layers and the output head; "
            f"allowed are 1 to {config.num_layers + 1}"
        )
    flops = forward_flops(config)
    head = flops.pop("output head")
    costs = [sum(flops.values()) / config.num_layers] * config.num_layers + [head]

    @cache
    def best(start: int, stages: int) -> tuple[float, float, tuple[int, ...]]:
        """The least (highest cost, sum of squared costs), and where the stages end, for the items from `start`."""
        if stages == 1:
            total = sum(costs[start:])
            return total, total**2, (len(costs),)
        candidates = []
        for stop in range(start + 1, len(costs) - stages + 2):
            cost = sum(costs[start:stop])
            highest, squares, ends = best(stop, stages - 1)
            candidates.append((max(cost, highest), cost**2 + squares, (stop, *ends)))
        return min(candidates)

    ends = best(0, num_stages)[2]
    # The last item is the head, which is no block.
    return [range(start, min(stop, config.num_layers)) for start, stop in zip((0, *ends[:-1]), ends, strict=True)]


class PipelineStage(nn.Module):
    """The consecutive layers of a model that one rank holds, under the names they have in the model.

    Args:
        model: the whole model, or a tensor-parallel shard of it. The stage shares its layers; what other stages hold is
            freed once the model itself is forgotten.
        stage, num_stages: which part of it.

    Attributes:
        blocks: the numbers of the stage's Transformer blocks.
        is_first, is_last: whether the embedding, and the final norm and the output head, belong to the stage.
        tied_name: the name of this stage's copy of a tied embedding that another stage holds too; else None.
    """

    def __init__(self, model: BasicsTransformerLM, stage: int, num_stages: int) -> None:
        super().__init__()
        self.config = model.config
        self.stage, self.num_stages = stage, num_stages
        self.is_first, self.is_last = stage == 0, stage == num_stages - 1
        self.blocks = split_layers(model.config, num_stages)[stage]
        embedding = model.token_embeddings
        self.sequence_shards = 1
        if isinstance(embedding, VocabParallelEmbedding) and embedding.sequence_parallel:
            self.sequence_shards = dist.get_world_size(embedding.group)
        if self.is_first:
            self.token_embeddings = embedding
        self.layers = nn.ModuleDict({str(index): model.layers[index] for index in self.blocks})
        if self.is_last:
            self.ln_final = model.ln_final
            self.lm_head = model.lm_head
        self.tied_name: str | None = None
        if model.config.tie_embeddings and num_stages > 1:
            if self.is_first:
                self.tied_name = "token_embeddings.weight"
            elif self.is_last:
                self.tied_name = "lm_head.weight"

    def forward(
        self, x: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq d_model"]
    ) -> Float[Tensor, "batch seq features"]:
        """Token ids into the first stage, logits out of the last one; the residual stream between them."""
        if self.is_first:
            x = self.token_embeddings(x)
        for block in self.layers.values():
            x = block(x)
        return self.lm_head(self.ln_final(x)) if self.is_last else x

    def activation_shape(self, batch_size: int, length: int) -> tuple[int, int, int]:
        """The shape of what passes between stages for that many sequences of `length` tokens.

        Raises:
            UsageError: with sequence parallelism, the ranks do not divide the length.
        """
        if length % self.sequence_shards:
            raise UsageError(
                f"sequence parallelism over {self.sequence_shards} ranks cannot divide {length} tokens; give a multiple"
            )
        return batch_size, length // self.sequence_shards, self.config.d_model
