"""The learning-rate schedule: linear warm-up, then half a cosine down to a floor (SGDR, arXiv:1608.03983, eq. 5)."""

import math


def get_cosine_lr(
    it: int, max_learning_rate: float, min_learning_rate: float, warmup_iters: int, cosine_cycle_iters: int
) -> float:
    """The learning rate at iteration `it`.

        it < warmup                    it / warmup * max
        warmup <= it <= cosine_cycle   min + (1 + cos(pi * (it - warmup) / (cosine_cycle - warmup))) / 2 * (max - min)
        it > cosine_cycle              min

    Args:
        it: the iteration, counted from 0.
        max_learning_rate: the value at the end of the warm-up.
        min_learning_rate: the value at `cosine_cycle_iters` and ever after.
        warmup_iters: the length of the linear warm-up, in iterations; 0 for none.
        cosine_cycle_iters: the iteration at which the cosine reaches the floor (counted from 0, warm-up included).
    """
    if it < warmup_iters:
        return it / warmup_iters * max_learning_rate
    if it >= cosine_cycle_iters:
        return min_learning_rate
    progress = (it - warmup_iters) / (cosine_cycle_iters - warmup_iters)
    return min_learning_rate + 0.5 * (1 + math.cos(math.pi * progress)) * (max_learning_rate - min_learning_rate)
