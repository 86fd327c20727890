"""The loss, the schedule and the clipping of training, under one import."""

from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_basics.trainer.gradient_clipping import clip_gradient
from cs336_basics.trainer.schedule import get_cosine_lr

__all__ = ["clip_gradient", "cross_entropy", "get_cosine_lr"]
