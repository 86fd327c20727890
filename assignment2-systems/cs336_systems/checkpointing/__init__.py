"""Gradient checkpointing: activations that are computed again in the backward pass instead of being kept."""
