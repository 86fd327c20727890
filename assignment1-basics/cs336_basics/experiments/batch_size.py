"""Batch sizes at an equal number of training tokens."""

from cs336_basics.experiments.study import BASE_SETTINGS, VOCAB_SIZES, Run, Scale, Study

SIZES: dict[Scale, tuple[int, ...]] = {
    "smoke": (1, 4, 16),
    "cpu": (1, 4, 16, 64, 128),
    "laptop": (1, 8, 32, 64, 128),
    "gpu": (1, 8, 32, 64, 128, 256, 512, 1024),
}
TOKEN_SHARE: dict[Scale, float] = {"smoke": 1.0, "cpu": 0.5, "laptop": 0.25, "gpu": 0.125}
"""Of the scale's usual number of training tokens: batches of one sequence take very many steps."""
BASE_RATE, BASE_BATCH = 1e-3, 32


def batch_size(scale: Scale) -> Study:
    """Batches from one sequence up to what memory holds; the learning rate grows with the square root of the size.

    The square-root rule is Malladi et al. (2022), arXiv:2205.10287, for Adam.
    """
    base = BASE_SETTINGS[scale]
    sequences = base["batch_size"] * base["train_steps"] * TOKEN_SHARE[scale]
    runs = []
    for size in SIZES[scale]:
        steps = max(1, round(sequences / size))
        settings = {
            "batch_size": size,
            "train_steps": steps,
            "max_lr": BASE_RATE * (size / BASE_BATCH) ** 0.5,
            "val_interval": max(1, steps // 20),
            "val_batches": max(1, round(base["val_batches"] * base["batch_size"] / size)),  # the same validation text
            "log_intervals": max(1, steps // 200),
        }
        runs.append(Run(f"batch_{size}", settings))
    return Study(
        name="batch_size",
        title="Batch sizes",
        question=(
            "How does the batch size change the result and the speed when every run sees equally many tokens? Small "
            "batches take many noisy steps and leave the machine idle; large ones take few. A batch that does not fit "
            "into memory is shown as such."
        ),
        base=base,
        runs=tuple(runs),
        varied=("batch_size", "train_steps", "max_lr"),
        x_axis="batch_size",
        vocab_size=VOCAB_SIZES["tinystories"][scale],
    )
