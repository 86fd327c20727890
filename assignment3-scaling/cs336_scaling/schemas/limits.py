"""Numbers that both sides of the training API know."""

SEQUENCE_LENGTH = 512
"""Tokens per training sequence, Spring 2026."""

VALIDATION_TOKENS = 2**18
"""Tokens of the validation set, Spring 2026."""

BUDGET_2025_FLOPS = 2e18
TARGET_2025_FLOPS = 1e19
BUDGET_2026_SECONDS = 43_200.0
TARGET_2026_SECONDS = 172_800.0

VOCABULARY_2025 = 32_000
"""The 2025 models' vocabulary; its embeddings do not count in N = 12 · num_layers · d_model²."""
