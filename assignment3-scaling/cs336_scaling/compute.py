"""Training compute of a configuration, with everything that is a matrix product counted.

At the sizes of a study at home the usual 6·N·D is far off: attention over 512 tokens costs a narrow model as much as
its weights do, and the embedding's parameters cost nothing.
"""

from cs336_scaling.schemas.edition_2026 import ArchitectureConfig, TrainingConfig
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH


def training_flops_per_token(architecture: ArchitectureConfig, sequence_length: int = SEQUENCE_LENGTH) -> int:
    """FLOPs per token of a training step.

    6 for each weight of the blocks and of the output head, and 12 · layers · width · sequence length for the two
    products of tokens with tokens in attention, counted for all pairs (Chowdhery et al. 2022, appendix B,
    https://arxiv.org/abs/2204.02311).
    """
    weights = architecture.num_block_parameters + architecture.vocab_size * architecture.hidden_size
    return 6 * weights + 12 * architecture.num_hidden_layers * architecture.hidden_size * sequence_length


def training_flops(config: TrainingConfig, sequence_length: int = SEQUENCE_LENGTH) -> int:
    """FLOPs of a whole run."""
    return training_flops_per_token(config.architecture_config, sequence_length) * config.total_train_tokens
