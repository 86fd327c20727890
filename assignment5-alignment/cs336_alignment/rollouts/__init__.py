"""Sampling responses from a policy: one interface, answered by Hugging Face's forward pass or by vLLM."""

from cs336_alignment.rollouts.interface import Rollout, RolloutEngine, SamplingParameters

__all__ = ["Rollout", "RolloutEngine", "SamplingParameters"]
