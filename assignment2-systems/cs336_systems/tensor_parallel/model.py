"""Turning a Transformer language model into this rank's shard of it (Shoeybi et al. 2019, section 3, figure 3)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_basics.model import (
    BasicsTransformerLM,
    CausalMultiHeadSelfAttention,
    RMSNorm,
    TransformerBlock,
    TransformerConfig,
)
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.tensor_parallel.collectives import enter_region
from cs336_systems.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    SharedGainRMSNorm,
    VocabParallelEmbedding,
)
from cs336_systems.tensor_parallel.loss import vocab_parallel_cross_entropy


def tensor_parallelize(
    model: BasicsTransformerLM,
    group: dist.ProcessGroup,
    *,
    sequence_parallel: bool = False,
    gather_logits: bool = False,
) -> BasicsTransformerLM:
    """Make a model, in place, into this rank's shard of it; its parameters keep their names.

    Attention heads, the feed-forward width and the vocabulary are divided over the ranks; norms are on every rank.
    Each sub-layer is then a smaller one of its kind between one `enter_region` and one `leave_region`, and the logits
    stay divided by the vocabulary: `language_model_loss` gives the loss that fits. Tied embeddings stay tied.

    Every rank starts from the same weights: models made from one seed, or loaded from one file. A model on the meta
    device works too, so that no rank ever holds it whole: divide it, then `to_empty` (after which torch wants tied
    weights to be tied again), then `load_full_state_dict`.

    Args:
        model: the whole model.
        group: the ranks that share it, such as `Mesh.tensor_group`.
        sequence_parallel: between the regions, each rank holds its share of the tokens instead of all of them: norms
            and residual sums are divided too, and the saved activations with them (Korthikanti et al. 2022,
            https://arxiv.org/abs/2205.05198). The ranks must divide the sequence length.
        gather_logits: return whole logits on every rank, for use without the parallel loss.

    Returns:
        The model.

    Raises:
        UsageError: the ranks do not divide the heads or the feed-forward width, or outnumber the vocabulary.
    """
    config = model.config
    check_divisible(config, dist.get_world_size(group))
    model.token_embeddings = VocabParallelEmbedding(model.token_embeddings, group, sequence_parallel=sequence_parallel)
    for block in model.layers:
        _divide_block(block, group, sequence_parallel)
    model.ln_final = _norm_on_shards(model.ln_final, group) if sequence_parallel else model.ln_final
    model.lm_head = ColumnParallelLinear(
        model.lm_head, group, sequence_parallel=sequence_parallel, gather_output=gather_logits
    )
    if config.tie_embeddings:
        model.lm_head.weight = model.token_embeddings.weight
    return model


def check_divisible(config: TransformerConfig, num_ranks: int) -> None:
    """Refuse a number of tensor-parallel ranks that the model cannot be divided over.

    Raises:
        UsageError: the ranks do not divide the heads or the feed-forward width, or outnumber the vocabulary.
    """
    for name, size in (("num_heads", config.num_heads), ("d_ff", config.d_ff)):
        if size % num_ranks:
            raise UsageError(f"{num_ranks} tensor-parallel ranks do not divide {name} {size}; allowed are its divisors")
    if config.vocab_size < num_ranks:
        raise UsageError(f"vocab_size {config.vocab_size} is less than the {num_ranks} tensor-parallel ranks")


def _divide_block(block: TransformerBlock, group: dist.ProcessGroup, sequence_parallel: bool) -> None:
    attention: CausalMultiHeadSelfAttention = block.attn
    attention.num_heads //= dist.get_world_size(group)
    _divide_linears(attention, ("q_proj", "k_proj", "v_proj"), "output_proj", group, sequence_parallel)
    columns = [name for name in ("w1", "w3") if hasattr(block.ffn, name)]
    _divide_linears(block.ffn, columns, "w2", group, sequence_parallel)
    # The gains of QK-norm act on each rank's own heads.
    attention.q_norm = _norm_on_shards(attention.q_norm, group)
    attention.k_norm = _norm_on_shards(attention.k_norm, group)
    if sequence_parallel:
        block.ln1, block.ln2 = _norm_on_shards(block.ln1, group), _norm_on_shards(block.ln2, group)


def _divide_linears(
    sub_layer: nn.Module, columns: Sequence[str], row: str, group: dist.ProcessGroup, sequence_parallel: bool
) -> None:
    """Divide the Linears that read a sub-layer's input and the one that writes its output."""
    for name in columns:
        setattr(sub_layer, name, ColumnParallelLinear(getattr(sub_layer, name), group, enters_region=False))
    linear = RowParallelLinear(getattr(sub_layer, row), group, sequence_parallel=sequence_parallel)
    setattr(sub_layer, row, linear)

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (enter_region(inputs[0], group, sequence_parallel), *inputs[1:])

    sub_layer.register_forward_pre_hook(enter)


def _norm_on_shards(norm: nn.Module | None, group: dist.ProcessGroup) -> nn.Module | None:
    return SharedGainRMSNorm(norm, group) if isinstance(norm, RMSNorm) else norm


def tensor_group(model: nn.Module) -> dist.ProcessGroup | None:
    """The group that shares the model's layers; None if it is not divided."""
    return next((module.group for module in model.modules() if isinstance(module, RowParallelLinear)), None)


def language_model_loss(model: BasicsTransformerLM) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean cross-entropy f(logits, targets) that fits what the model returns: whole or divided logits."""
    head = model.lm_head
    if isinstance(head, ColumnParallelLinear) and not head.gather_output:
        return partial(vocab_parallel_cross_entropy, vocab_size=head.shard.size, group=head.group)
    return cross_entropy
