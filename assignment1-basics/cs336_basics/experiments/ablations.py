"""What each part of the architecture is worth: the same run without it."""

from cs336_basics.experiments.study import BASE_SETTINGS, VOCAB_SIZES, Run, Scale, Study

RATE = 1e-3


def ablations(scale: Scale) -> Study:
    """No RMSNorm (at the baseline's rate and a tenth of it), post-norm, no position information, SiLU without gate."""
    return Study(
        name="ablations",
        title="Architecture ablations",
        question=(
            "What does the model lose without layer normalization, with normalization after each sublayer instead of "
            "before it, without rotary position embeddings, and without the gate of its feed-forward layers (at an "
            "equal number of parameters)? Without normalization the baseline's learning rate may diverge, so a lower "
            "one is tried as well."
        ),
        base={**BASE_SETTINGS[scale], "max_lr": RATE},
        runs=(
            Run("baseline"),
            Run("no_norm", {"norm": "none"}),
            Run("no_norm_lower_lr", {"norm": "none", "max_lr": RATE / 10}),
            Run("post_norm", {"norm": "post"}),
            Run("no_position", {"position": "none"}),
            Run("silu", {"ffn": "silu", "d_ff": None}),
        ),
        varied=("norm", "position", "ffn", "max_lr"),
        vocab_size=VOCAB_SIZES["tinystories"][scale],
    )
