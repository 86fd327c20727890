"""Fused pieces of a training step: fewer passes over memory for the loss, the norms and the optimizer."""
