"""The course's import name for the optimizer and its schedule."""

from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.schedule import get_cosine_lr

__all__ = ["AdamW", "get_cosine_lr"]
