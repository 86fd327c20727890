"""Which examples make up the batch of a step: a function of the seed and the step, so that nothing need be saved."""

import functools

import numpy as np
from jaxtyping import Int


@functools.lru_cache(maxsize=2)  # a batch reaches over the end of an epoch
def _permutation(num_examples: int, seed: int, epoch: int) -> Int[np.ndarray, " num_examples"]:
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def batch_indices(step: int, num_examples: int, batch_size: int, seed: int) -> Int[np.ndarray, " batch"]:
    """The examples of batch `step`, counted from 0.

    Every epoch goes through all examples once, in an order of its own; a batch that reaches the end of one is filled
    up from the next.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(positions, num_examples)
    return np.array(
        [_permutation(num_examples, seed, int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)],
        dtype=np.int64,
    )
