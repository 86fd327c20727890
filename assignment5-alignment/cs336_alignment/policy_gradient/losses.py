"""Policy-gradient losses per token, negated for descent, and their choice by name.

With the advantage A of a response, the log-probabilities l of its tokens under the policy and l_old under the policy
that wrote it, the ratio r = exp(l - l_old), and clip(r) = min(max(r, 1 - low), 1 + high):

    none    -A l                             REINFORCE (Williams 1992); A may be a raw reward
    noclip  -A r                             importance sampling without a bound
    grpo    -min(r A, clip(r) A)             Schulman et al. 2017, "PPO", arXiv:1707.06347, eq. 7; Shao et al. 2024,
                                             "DeepSeekMath", arXiv:2402.03300, eq. 3; with high > low Yu et al. 2025,
                                             "DAPO", arXiv:2503.14476, eq. 10
    gspo    -min(s A, clip(s) A)             s = exp(mean of l - l_old over the response): Zheng et al. 2025, "Group
                                             Sequence Policy Optimization", arXiv:2507.18071, eq. 5 and 7
    cispo   -stop_gradient(clip(r)) A l      MiniMax 2025, "MiniMax-M1", arXiv:2506.13585, eq. 4 and 5

At the first step on fresh rollouts every ratio is 1, and noclip, grpo, gspo and cispo all have the gradient of `none`
(gspo: once averaged over the response).
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cs336_alignment.masked import masked_mean, masked_normalize
from cs336_basics.command_line import UsageError

ImportanceReweighting = Literal["none", "noclip", "grpo", "gspo", "cispo"]
IMPORTANCE_REWEIGHTING_METHODS = ("none", "noclip", "grpo", "gspo", "cispo")
CLIPPED_METHODS = ("grpo", "gspo", "cispo")
LossType = Literal["no_baseline", "reinforce_with_baseline", "grpo_clip", "grpo_no_clip"]
LOSS_TYPES = ("no_baseline", "reinforce_with_baseline", "grpo_clip", "grpo_no_clip")

Metadata = dict[str, Tensor]


def _beside(log_probs: Tensor, values: Tensor, name: str) -> Float[Tensor, "batch ..."]:
    """One number per response, or per token, as a constant to stand beside (batch, seq)."""
    batch, seq = log_probs.shape
    if values.shape not in ((batch,), (batch, 1), (batch, seq)):
        raise UsageError(
            f"{name} of shape {tuple(values.shape)} do not fit log-probabilities {(batch, seq)}; allowed is one per "
            f"row, ({batch},) or ({batch}, 1), or one per token"
        )
    return values.detach().reshape(batch, -1)


def _log_ratio(policy_log_probs: Tensor, old_log_probs: Tensor | None) -> Float[Tensor, "batch seq"]:
    if old_log_probs is None:
        raise UsageError("old_log_probs is None; a ratio to the policy that wrote the responses needs them")
    if old_log_probs.shape != policy_log_probs.shape:
        raise UsageError(
            f"old_log_probs {tuple(old_log_probs.shape)} do not have the shape of policy_log_probs "
            f"{tuple(policy_log_probs.shape)}"
        )
    return policy_log_probs - old_log_probs.detach()


def _clip(ratio: Tensor, cliprange: float | None, cliprange_high: float | None) -> Tensor:
    if cliprange is None or not cliprange >= 0 or not (cliprange_high is None or cliprange_high >= 0):
        raise UsageError(f"cliprange is {cliprange} and cliprange_high {cliprange_high}; allowed are numbers from 0")
    return ratio.clamp(1 - cliprange, 1 + (cliprange if cliprange_high is None else cliprange_high))


def _clip_metadata(clipped: Bool[Tensor, "batch seq"], response_mask: Tensor | None) -> Metadata:
    everywhere = torch.ones_like(clipped) if response_mask is None else response_mask
    return {"clipped": clipped, "clip_fraction": masked_mean(clipped.float(), everywhere)}


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, cliprange: float | None, cliprange_high: float | None = None
) -> tuple[Tensor, Bool[Tensor, "..."]]:
    """-min(r A, clip(r) A), and where the clipped side is the smaller one, whose gradient is 0."""
    unclipped = ratio * advantages
    clipped = _clip(ratio, cliprange, cliprange_high) * advantages
    return -torch.minimum(unclipped, clipped), clipped < unclipped


def compute_naive_policy_gradient_loss(
    raw_rewards_or_advantages: Float[Tensor, "batch 1"], policy_log_probs: Float[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """`none` of the module's table.

    Args:
        raw_rewards_or_advantages: one per response, (batch, 1) or (batch,).

    Raises:
        UsageError: the shapes do not fit.
    """
    return -_beside(policy_log_probs, raw_rewards_or_advantages, "rewards or advantages") * policy_log_probs


def compute_grpo_no_clip_loss(
    advantages: Float[Tensor, "batch 1"],
    policy_log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
) -> Float[Tensor, "batch seq"]:
    """`noclip` of the module's table.

    Raises:
        UsageError: the shapes do not fit, or `old_log_probs` is None.
    """
    return -_beside(policy_log_probs, advantages, "advantages") * _log_ratio(policy_log_probs, old_log_probs).exp()


def compute_grpo_clip_loss(
    advantages: Float[Tensor, "batch 1"],
    policy_log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
    cliprange: float,
    cliprange_high: float | None = None,
    response_mask: Bool[Tensor, "batch seq"] | None = None,
) -> tuple[Float[Tensor, "batch seq"], Metadata]:
    """`grpo` of the module's table.

    Args:
        cliprange: how far a ratio may fall below 1, and rise above it unless `cliprange_high` says otherwise.
        response_mask: the tokens that count in "clip_fraction"; None counts all.

    Returns:
        The loss, and the metadata "clipped", bool (batch, seq): where the clipped side was the smaller one, and
        "clip_fraction", its mean.

    Raises:
        UsageError: the shapes do not fit, or a clip range or `old_log_probs` is missing.
    """
    ratio = _log_ratio(policy_log_probs, old_log_probs).exp()
    advantages = _beside(policy_log_probs, advantages, "advantages")
    loss, clipped = clipped_surrogate(ratio, advantages, cliprange, cliprange_high)
    return loss, _clip_metadata(clipped, response_mask)


def compute_gspo_loss(
    advantages: Float[Tensor, "batch 1"],
    policy_log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
    cliprange: float,
    response_mask: Bool[Tensor, "batch seq"],
    cliprange_high: float | None = None,
) -> tuple[Float[Tensor, "batch seq"], Metadata]:
    """`gspo` of the module's table: every token of a row has its response's loss.

    Returns:
        As `compute_grpo_clip_loss`. The ratio of a row without response tokens is 1.

    Raises:
        UsageError: as there, or the mask is missing.
    """
    if response_mask is None:
        raise UsageError("response_mask is None; the ratio of a whole response needs it")
    total = masked_normalize(_log_ratio(policy_log_probs, old_log_probs), response_mask, dim=1)
    log_ratio = total / response_mask.sum(dim=1).clamp(min=1)
    advantages = _beside(policy_log_probs, advantages, "advantages")
    loss, clipped = clipped_surrogate(log_ratio.exp().unsqueeze(1), advantages, cliprange, cliprange_high)
    shape = policy_log_probs.shape
    return loss.expand(shape), _clip_metadata(clipped.expand(shape), response_mask)


def compute_cispo_loss(
    advantages: Float[Tensor, "batch 1"],
    policy_log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
    cliprange: float,
    cliprange_high: float | None = None,
    response_mask: Bool[Tensor, "batch seq"] | None = None,
) -> tuple[Float[Tensor, "batch seq"], Metadata]:
    """`cispo` of the module's table: clipping bounds a token's weight, but never silences it.

    MiniMax bounds the weight only from above; a `cliprange` of 1 or more does that.

    Returns:
        As `compute_grpo_clip_loss`; "clipped" marks the weights that the bounds changed.

    Raises:
        UsageError: as there.
    """
    with torch.no_grad():
        ratio = _log_ratio(policy_log_probs, old_log_probs).exp()
        weight = _clip(ratio, cliprange, cliprange_high)
    loss = -weight * _beside(policy_log_probs, advantages, "advantages") * policy_log_probs
    return loss, _clip_metadata(weight != ratio, response_mask)


def compute_policy_gradient_loss(
    raw_rewards_or_advantages: Float[Tensor, "batch 1"],
    policy_log_probs: Float[Tensor, "batch seq"],
    importance_reweighting_method: ImportanceReweighting = "none",
    old_log_probs: Float[Tensor, "batch seq"] | None = None,
    cliprange: float | None = None,
    response_mask: Bool[Tensor, "batch seq"] | None = None,
    *,
    cliprange_high: float | None = None,
) -> tuple[Float[Tensor, "batch seq"], Metadata]:
    """The loss of each token by one of the methods in the module's table.

    Args:
        raw_rewards_or_advantages: one per response, (batch, 1) or (batch,).
        policy_log_probs: what is differentiated.
        old_log_probs: under the policy that wrote the responses; all methods but "none" need them.
        cliprange: how far a ratio may leave 1; "grpo", "gspo" and "cispo" need it.
        response_mask: "gspo" needs it; elsewhere it only says which tokens count in "clip_fraction".
        cliprange_high: how far a ratio may rise above 1, if that differs from how far it may fall below.

    Returns:
        The loss, and the metadata "clipped", bool (batch, seq), and "clip_fraction"; no metadata for methods that do
        not clip.

    Raises:
        UsageError: the method is unknown, or lacks what it needs, or shapes do not fit.
    """
    given = (raw_rewards_or_advantages, policy_log_probs)
    match importance_reweighting_method:
        case "none":
            return compute_naive_policy_gradient_loss(*given), {}
        case "noclip":
            return compute_grpo_no_clip_loss(*given, old_log_probs), {}
        case "grpo":
            return compute_grpo_clip_loss(*given, old_log_probs, cliprange, cliprange_high, response_mask)
        case "gspo":
            return compute_gspo_loss(*given, old_log_probs, cliprange, response_mask, cliprange_high)
        case "cispo":
            return compute_cispo_loss(*given, old_log_probs, cliprange, cliprange_high, response_mask)
    raise UsageError(
        f"importance_reweighting_method is {importance_reweighting_method!r}; allowed are "
        f"{', '.join(IMPORTANCE_REWEIGHTING_METHODS)}"
    )


def compute_loss_of_type(
    policy_log_probs: Float[Tensor, "batch seq"],
    loss_type: LossType,
    raw_rewards: Float[Tensor, "batch 1"] | None = None,
    advantages: Float[Tensor, "batch 1"] | None = None,
    old_log_probs: Float[Tensor, "batch seq"] | None = None,
    cliprange: float | None = None,
    *,
    response_mask: Bool[Tensor, "batch seq"] | None = None,
) -> tuple[Float[Tensor, "batch seq"], Metadata]:
    """`compute_policy_gradient_loss` by the Spring 2025 handout's names of a baseline and a method together.

    "no_baseline" is `none` on raw rewards; "reinforce_with_baseline", "grpo_no_clip" and "grpo_clip" are `none`,
    `noclip` and `grpo` on advantages.

    Raises:
        UsageError: the type is unknown, or lacks what it needs.
    """
    if loss_type not in LOSS_TYPES:
        raise UsageError(f"loss_type is {loss_type!r}; allowed are {', '.join(LOSS_TYPES)}")
    name, weights = ("raw_rewards", raw_rewards) if loss_type == "no_baseline" else ("advantages", advantages)
    if weights is None:
        raise UsageError(f"{name} is None, which loss_type {loss_type!r} needs")
    method = {"grpo_clip": "grpo", "grpo_no_clip": "noclip"}.get(loss_type, "none")
    return compute_policy_gradient_loss(weights, policy_log_probs, method, old_log_probs, cliprange, response_mask)
