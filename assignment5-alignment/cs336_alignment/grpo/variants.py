"""The published variants of policy gradients on groups of rollouts, as choices of the same few pieces.

`cs336_alignment.policy_gradient` says what the pieces are: `advantages.py` the baseline and the normalizer, `losses.py`
the method of importance reweighting and the clip ranges, `aggregation.py` the normalization of the loss.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """The pieces of a variant; what is None has no meaning for its method."""

    baseline: str
    advantage_normalizer: str
    importance_reweighting: str
    loss_normalization: str
    cliprange: float | None = None
    cliprange_high: float | None = None


_REINFORCE = Variant("none", "none", "none", "sequence")
_REINFORCE_BASELINE = Variant("mean", "std", "none", "sequence")

VARIANTS = {
    # Williams 1992: raw rewards. With rewards of 0 and 1 it is RFT, the likelihood of the right responses alone.
    "reinforce": _REINFORCE,
    "no_baseline": _REINFORCE,
    "rft": _REINFORCE,
    "reinforce_baseline": _REINFORCE_BASELINE,
    "reinforce_with_baseline": _REINFORCE_BASELINE,
    # Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300.
    "grpo_clip": Variant("mean", "std", "grpo", "sequence", 0.2, 0.2),
    "grpo_no_clip": Variant("mean", "std", "noclip", "sequence"),
    # Liu et al. 2025, "Understanding R1-Zero-Like Training", arXiv:2503.20783.
    "dr_grpo": Variant("mean", "none", "grpo", "constant", 0.2, 0.2),
    # Tajwar et al. 2026, "Maximum Likelihood Reinforcement Learning", arXiv:2602.02710.
    "maxrl": Variant("mean", "mean", "none", "sequence"),
    # Zheng et al. 2025, arXiv:2507.18071, section 5.1, for the ranges.
    "gspo": Variant("mean", "std", "gspo", "sequence", 3e-4, 4e-4),
    # MiniMax 2025, "MiniMax-M1", arXiv:2506.13585, section 3.1: no bound below.
    "cispo": Variant("mean", "std", "cispo", "token", 1.0, 0.2),
    # Yu et al. 2025, arXiv:2503.14476, section 4.1, for the ranges.
    "dapo": Variant("mean", "std", "grpo", "token", 0.2, 0.28),
}
"""By name; those of the Spring 2025 handout's loss types stand beside their other names."""
