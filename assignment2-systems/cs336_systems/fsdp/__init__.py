"""Fully sharded data parallelism (ZeRO stage 3), layer by layer, and its checkpoints."""

from cs336_systems.fsdp.wrapper import FSDP

__all__ = ["FSDP"]
