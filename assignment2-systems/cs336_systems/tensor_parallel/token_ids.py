"""Token ids seen from a rank that holds a part of the vocabulary."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def local_ids(
    token_ids: Int[Tensor, "..."], mine: range, vocab_size: int
) -> tuple[Int[Tensor, "..."], Bool[Tensor, "..."]]:
    """The row of each id in this rank's part (row 0 for ids of other ranks), and whether it is there.

    Args:
        token_ids: ids from the whole vocabulary.
        mine: the ids this rank holds.
        vocab_size: the number of all ids.

    Raises:
        IndexError: an id lies outside the vocabulary, which no rank would notice otherwise (on a CPU; an accelerator
            stops by an assertion).
    """
    is_known = (token_ids >= 0) & (token_ids < vocab_size)
    if token_ids.device.type != "cpu":
        torch._assert_async(is_known.all())
    elif not is_known.all():
        raise IndexError(f"token id {token_ids[~is_known][0]} is out of range; allowed are 0 to {vocab_size - 1}")
    is_mine = (token_ids >= mine.start) & (token_ids < mine.stop)
    return (token_ids - mine.start).masked_fill(~is_mine, 0), is_mine
