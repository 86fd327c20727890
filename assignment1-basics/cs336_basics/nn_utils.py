"""The course's import name for softmax, the loss and gradient clipping."""

from cs336_basics.model.functional import softmax
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_basics.trainer.gradient_clipping import clip_gradient

__all__ = ["clip_gradient", "cross_entropy", "softmax"]
