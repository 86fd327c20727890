"""A Linear divided by columns or by rows, an Embedding divided by the vocabulary, and norms beside them.

The names follow Shoeybi et al. 2019 (https://arxiv.org/abs/1909.08053, section 3), who write Y = X A: the columns of A
are outputs, which are the rows of our weight. A column-parallel layer feeds a row-parallel one without communication.

Each class takes a whole layer and keeps this rank's shard of its weight, under the same name. Shards of a vocabulary
that the ranks do not divide evenly differ by one row, so that no padding enters a product, a norm or a checkpoint.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_basics.model import Embedding, Linear, RMSNorm
from cs336_basics.model.functional import rms_norm
from cs336_basics.model.fused import fused_rms_norm
from cs336_systems.tensor_parallel.collectives import (
    copy_to_group,
    enter_region,
    gather_features,
    group_shard_range,
    leave_region,
    take,
)
from cs336_systems.tensor_parallel.token_ids import local_ids


@dataclass(frozen=True)
class Shard:
    """How a tensor is divided over the group: consecutive parts of `size` indices along `dim`."""

    dim: int
    size: int


class ShardedWeight(nn.Module):
    """The part that all divided layers share: one weight, and how it was divided.

    Args:
        weight: the whole weight.
        dim: the dimension to divide.
        group: the ranks that share it.

    Raises:
        UsageError: there are fewer indices than ranks.
    """

    def __init__(self, weight: nn.Parameter, dim: int, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.group, self.shard = group, Shard(dim, weight.shape[dim])
        if self.shard.size < dist.get_world_size(group):
            raise UsageError(
                f"a weight of shape {tuple(weight.shape)} cannot be divided over {dist.get_world_size(group)} ranks "
                f"along dimension {dim}; allowed are at most {self.shard.size}"
            )
        self.indices = group_shard_range(self.shard.size, group)
        part = take(weight.detach(), self.indices, dim).clone(memory_format=torch.contiguous_format)
        self.weight = nn.Parameter(part, requires_grad=weight.requires_grad)

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight.shape)}, dim {self.shard.dim} divided from {self.shard.size}"


class ColumnParallelLinear(ShardedWeight):
    """y = x Wᵀ, of which this rank computes the outputs `indices`.

    Args:
        linear: the whole layer.
        group: the ranks that share it.
        enters_region: sum the input's gradients over the ranks; False where several layers read one input that has
            already been through `enter_region`, so that its gradient travels once.
        sequence_parallel: the input holds this rank's tokens.
        gather_output: return the outputs of all ranks, side by side.
    """

    def __init__(
        self,
        linear: Linear,
        group: dist.ProcessGroup,
        *,
        enters_region: bool = True,
        sequence_parallel: bool = False,
        gather_output: bool = False,
    ) -> None:
        super().__init__(linear.weight, 0, group)
        self.enters_region, self.sequence_parallel = enters_region, sequence_parallel
        self.gather_output = gather_output

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out_shard"]:
        if self.enters_region:
            x = enter_region(x, self.group, self.sequence_parallel)
        y = x @ self.weight.T
        return gather_features(y, self.group, self.shard.size) if self.gather_output else y


class RowParallelLinear(ShardedWeight):
    """y = x Wᵀ for inputs of which this rank holds `indices`; every rank gets the sum.

    Args:
        linear: the whole layer.
        group: the ranks that share it.
        sequence_parallel: return this rank's tokens alone.
    """

    def __init__(self, linear: Linear, group: dist.ProcessGroup, *, sequence_parallel: bool = False) -> None:
        super().__init__(linear.weight, 1, group)
        self.sequence_parallel = sequence_parallel

    def forward(self, x: Float[Tensor, "... d_in_shard"]) -> Float[Tensor, "... d_out"]:
        return leave_region(x @ self.weight.T, self.group, self.sequence_parallel)


class VocabParallelEmbedding(ShardedWeight):
    """A table of which this rank holds the token ids `indices`; the others' ids give it zero vectors to add.

    Args:
        embedding: the whole table.
        group: the ranks that share it.
        sequence_parallel: return this rank's tokens alone.
    """

    def __init__(self, embedding: Embedding, group: dist.ProcessGroup, *, sequence_parallel: bool = False) -> None:
        super().__init__(embedding.weight, 0, group)
        self.sequence_parallel = sequence_parallel

    def forward(self, token_ids: Int[Tensor, "... seq"]) -> Float[Tensor, "... seq d_model"]:
        rows, is_mine = local_ids(token_ids, self.indices, self.shard.size)
        vectors = Embedding.forward(self, rows) * is_mine.unsqueeze(-1)
        return leave_region(vectors, self.group, self.sequence_parallel)


class SharedGainRMSNorm(RMSNorm):
    """An RMSNorm that every rank holds whole and applies to its own heads or tokens: its gain's gradient is a sum.

    Args:
        norm: the norm whose gain is taken over, as the same parameter.
        group: the ranks that share it.
    """

    def __init__(self, norm: RMSNorm, group: dist.ProcessGroup) -> None:
        nn.Module.__init__(self)
        self.eps, self.weight, self.group = norm.eps, norm.weight, group

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        normalize = rms_norm if torch.compiler.is_compiling() else fused_rms_norm
        return normalize(x, copy_to_group(self.weight, self.group), self.eps)
