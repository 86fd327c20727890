"""Training compute, against assignment 1's accounting."""

import pytest

from cs336_basics.accounting import training_flops_per_token as accounted
from cs336_basics.model.config import TransformerConfig
from cs336_scaling.compute import training_flops, training_flops_per_token
from cs336_scaling.schemas.edition_2026 import AdamWConfig, ArchitectureConfig, LRScheduler, TrainingConfig


@pytest.mark.parametrize(("width", "heads", "layers", "ffn", "vocabulary"), [(64, 2, 3, 176, 300), (96, 6, 1, 96, 999)])
def test_flops_are_those_of_the_accounting(width, heads, layers, ffn, vocabulary):
    architecture = ArchitectureConfig(
        head_dim=width // heads, hidden_size=width, intermediate_size=ffn, num_attention_heads=heads,
        num_key_value_heads=heads, num_hidden_layers=layers, vocab_size=vocabulary,
    )  # fmt: skip
    same = TransformerConfig(
        vocab_size=vocabulary, context_length=512, d_model=width, num_layers=layers, num_heads=heads, d_ff=ffn
    )
    assert training_flops_per_token(architecture) == accounted(same)
    config = TrainingConfig(
        architecture_config=architecture,
        optimizer_config=AdamWConfig(lr_scheduler=LRScheduler(peak_value=1e-3)),
        train_batch_size=2, total_train_tokens=10_240, max_runtime_seconds=1.0,
    )  # fmt: skip
    assert training_flops(config) == 10_240 * accounted(same)
