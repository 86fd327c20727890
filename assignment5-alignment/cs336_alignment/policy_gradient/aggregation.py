"""From losses of tokens to the loss of a batch.

With B sequences, of which sequence i has T_i response tokens of loss l_it:

    sequence   1/B sum_i 1/T_i sum_t l_it     GRPO: Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, eq. 3
    constant   1/C sum_i sum_t l_it           Dr. GRPO: Liu et al. 2025, arXiv:2503.20783, section 3.2; a response's
                                              length no longer weighs on its tokens. C = B · (longest response) there
    token      1/(sum_i T_i) sum_i sum_t l_it DAPO: Yu et al. 2025, arXiv:2503.14476, eq. 8
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cs336_alignment.masked import masked_mean, masked_normalize
from cs336_basics.command_line import UsageError

LossNormalization = Literal["sequence", "constant", "token"]
LOSS_NORMALIZATIONS = ("sequence", "constant", "token")


def check_normalization(loss_normalization: str, normalization_constant: float | None) -> None:
    """Raises:
    UsageError: the normalization is unknown, or lacks a constant above 0.
    """
    if loss_normalization not in LOSS_NORMALIZATIONS:
        raise UsageError(f"loss_normalization is {loss_normalization!r}; allowed are {', '.join(LOSS_NORMALIZATIONS)}")
    if loss_normalization == "constant" and (normalization_constant is None or not normalization_constant > 0):
        raise UsageError(
            f"normalization_constant is {normalization_constant}; loss_normalization 'constant' needs a number above 0"
        )


def aggregate_loss_across_microbatch(
    per_token_policy_gradient_loss: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    loss_normalization: LossNormalization = "sequence",
    normalization_constant: float | None = None,
) -> Float[Tensor, ""]:
    """The loss of a batch by the module's table.

    Args:
        mask: True for the tokens of the responses.
        normalization_constant: C, for "constant".

    Returns:
        A scalar; NaN under "sequence" if a row has no response tokens, and under "token" if none has.

    Raises:
        UsageError: the normalization is unknown, or lacks its constant.
    """
    check_normalization(loss_normalization, normalization_constant)
    if loss_normalization == "sequence":
        return masked_mean(per_token_policy_gradient_loss, mask, dim=1).mean()
    if loss_normalization == "token":
        return masked_mean(per_token_policy_gradient_loss, mask)
    return masked_normalize(per_token_policy_gradient_loss, mask, normalize_constant=normalization_constant)


def token_weights(
    mask: Bool[Tensor, "microbatch seq"],
    num_sequences: int,
    num_tokens: int | Tensor,
    loss_normalization: LossNormalization = "sequence",
    normalization_constant: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "microbatch seq"]:
    """How much each token's loss counts in the loss of a whole batch, of which these rows are a part.

    The losses of microbatches, weighted so, add up to the batch's, also if the microbatches differ in size. A row
    without response tokens has no weight, where `aggregate_loss_across_microbatch` has the mean of nothing.

    Args:
        mask: of the microbatch.
        num_sequences, num_tokens: of the whole batch; B and sum_i T_i in the module's table.
        dtype: of the weights.

    Returns:
        Weights, 0 outside the mask.

    Raises:
        UsageError: the normalization is unknown, or lacks its constant.
    """
    check_normalization(loss_normalization, normalization_constant)
    ones = mask.to(dtype)
    if loss_normalization == "sequence":
        return ones / (ones.sum(dim=1, keepdim=True).clamp(min=1) * num_sequences)
    return ones / (num_tokens if loss_normalization == "token" else normalization_constant)
