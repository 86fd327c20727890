"""Putting the fused pieces into a model."""

from jaxtyping import Float, Int
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM, CausalMultiHeadSelfAttention, RMSNorm
from cs336_systems.flash_attention import flash_attention
from cs336_systems.fused.linear_cross_entropy import linear_cross_entropy
from cs336_systems.fused.rms_norm import FusedRMSNorm


def use_fused_pieces(model: BasicsTransformerLM, attention: bool = True, norms: bool = True) -> BasicsTransformerLM:
    """Let a model compute attention and its norms by the fused pieces, in place; its parameters stay what they are.

    The other two pieces take a plain one's place in the training loop: `language_model_loss(model, inputs, targets)`
    for the loss, `FusedAdamW` for the optimizer.

    Args:
        attention: use `flash_attention`.
        norms: use `FusedRMSNorm`, those of queries and keys included.

    Returns:
        The model.
    """
    for module in model.modules():
        if attention and isinstance(module, CausalMultiHeadSelfAttention):
            module.attention_fn = flash_attention
        if norms and type(module) is RMSNorm:
            module.__class__ = FusedRMSNorm  # the same attributes: only `forward` differs
    return model


def language_model_loss(
    model: BasicsTransformerLM,
    inputs: Int[Tensor, "... seq"],
    targets: Int[Tensor, "... seq"],
    ignore_index: int | None = None,
) -> Float[Tensor, ""]:
    """The mean cross-entropy of a model's next-token logits, in nats, which never exist as a whole.

    Args:
        model: its output head is read here, outside of the head's own forward pass, so each rank must hold it whole.
        inputs, targets: token ids; a target of `ignore_index` does not count.
        ignore_index: None counts all targets.

    Raises:
        UsageError: the head is divided over ranks, by `FSDP` or `tensor_parallelize`.
    """
    weight = model.lm_head.weight
    if len(weight) != model.config.vocab_size:
        raise UsageError(
            f"this rank holds {len(weight)} of the output head's {model.config.vocab_size} rows, and the fused loss "
            "needs all of them; use the plain cross-entropy of the logits with FSDP and tensor parallelism"
        )
    return linear_cross_entropy(model.hidden_states(inputs), weight, targets, ignore_index)
