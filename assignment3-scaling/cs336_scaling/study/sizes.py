"""The model sizes of the study: a ladder of shapes, each with about 1.5 times the parameters of the one before."""

from dataclasses import dataclass

from cs336_scaling.compute import training_flops, training_flops_per_token
from cs336_scaling.schemas.edition_2026 import AdamWConfig, ArchitectureConfig, LRScheduler, TrainingConfig
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH

VOCAB_SIZE = 512
TRAIN_SEQUENCE_LENGTH = 128
"""The server trains on sequences this long: attention over 512 tokens would take most of a narrow model's time."""
BATCH_SIZE = 2
"""In the API's sequences of 512 tokens. Small, so that the smallest budget still pays for hundreds of steps."""
N_EVALS = 4
REFERENCE_WIDTH = 64

SHAPES = (
    (1, 16), (1, 24), (1, 32), (2, 32), (2, 40), (2, 48), (2, 64), (3, 64), (3, 80), (3, 96), (4, 112), (4, 128),
    (5, 144), (5, 176), (6, 208), (6, 256), (7, 304), (8, 352), (9, 416), (10, 512),
)  # fmt: skip
"""(layers, width)."""


@dataclass(frozen=True)
class Rung:
    """One model size; `index` is its place on the ladder."""

    index: int

    @property
    def architecture(self) -> ArchitectureConfig:
        """The shape, with tied embeddings: at these sizes two matrices of the vocabulary would be most of the model."""
        layers, width = SHAPES[self.index]
        head_dim = 8 if width < 64 else 16
        return ArchitectureConfig(
            head_dim=head_dim,
            hidden_size=width,
            intermediate_size=16 * round(8 * width / 3 / 16),
            num_attention_heads=width // head_dim,
            num_key_value_heads=width // head_dim,
            num_hidden_layers=layers,
            vocab_size=VOCAB_SIZE,
            tie_word_embeddings=True,
            dtype="float32",
        )

    @property
    def parameters(self) -> int:
        """All parameters, embeddings included."""
        return self.architecture.num_parameters

    def config(self, flops: float, reference_lr: float, max_runtime_seconds: float) -> TrainingConfig:
        """A run of this size.

        Args:
            flops: training FLOPs, met to within one part in the number of steps.
            reference_lr: the peak learning rate at `REFERENCE_WIDTH`. Wider models get proportionally less: Adam moves
                each weight by about the rate, so the change of a sum over the width grows with both (Yang et al. 2022,
                https://arxiv.org/abs/2203.03466, table 3).
            max_runtime_seconds: reserved for it.
        """
        per_round = BATCH_SIZE * SEQUENCE_LENGTH * N_EVALS
        architecture = self.architecture
        rounds = max(1, round(flops / training_flops_per_token(architecture, TRAIN_SEQUENCE_LENGTH) / per_round))
        rate = reference_lr * REFERENCE_WIDTH / architecture.hidden_size
        return TrainingConfig(
            architecture_config=architecture,
            optimizer_config=AdamWConfig(lr_scheduler=LRScheduler(peak_value=float(f"{rate:.4g}"), warmup_frac=0.1)),
            train_batch_size=BATCH_SIZE,
            val_batch_size=16,
            n_evals=N_EVALS,
            total_train_tokens=rounds * per_round,
            max_runtime_seconds=max_runtime_seconds,
        )


LADDER = tuple(Rung(index) for index in range(len(SHAPES)))


def nearest_rung(parameters: float) -> Rung:
    """The rung whose parameters are nearest in ratio."""
    return min(LADDER, key=lambda rung: max(rung.parameters / parameters, parameters / rung.parameters))


def window(center: Rung, size: int) -> list[Rung]:
    """`size` neighboring rungs around `center`, or at the ladder's end."""
    start = min(max(0, center.index - size // 2), len(LADDER) - size)
    return list(LADDER[start : start + size])


def flops_of(config: TrainingConfig) -> float:
    """Training FLOPs of a run as the study's server trains it."""
    return float(training_flops(config, TRAIN_SEQUENCE_LENGTH))
