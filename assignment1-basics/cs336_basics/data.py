"""The course's import name for batches."""

from cs336_basics.trainer.data_loading import get_batch

__all__ = ["get_batch"]
