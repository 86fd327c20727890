"""Learning rates, from too small to divergence."""

from cs336_basics.experiments.study import BASE_SETTINGS, VOCAB_SIZES, Run, Scale, Study

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
SMOKE_RATES = (1e-3, 1e-2, 10.0)


def learning_rate(scale: Scale) -> Study:
    """The sweep: each rate about three times the one before, until one diverges."""
    return Study(
        name="learning_rate",
        title="Learning-rate sweep",
        question=(
            "Which peak learning rate gives the lowest validation loss, and where does training diverge? The best rate "
            "often lies just below the edge of stability: the sweep goes on until a run ends with a loss that is not "
            "finite or that is no better than before training."
        ),
        base=BASE_SETTINGS[scale],
        runs=tuple(Run(f"lr_{rate:g}", {"max_lr": rate}) for rate in (SMOKE_RATES if scale == "smoke" else RATES)),
        varied=("max_lr",),
        x_axis="max_lr",
        stop_after_divergence=True,
        vocab_size=VOCAB_SIZES["tinystories"][scale],
    )
