"""Connected components by union-find (Tarjan 1975): duplicates of duplicates belong to one cluster."""

import numpy as np
from jaxtyping import Int64

from cs336_data.dedup.kernels import flatten, unite


class Components:
    """A partition of 0 … n-1 that grows coarser with every pair that is joined. It takes 8 bytes per member.

    Args:
        count: n.
    """

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def join(self, pairs: Int64[np.ndarray, "m 2"]) -> None:
        """Put the members of each pair into one component."""
        unite(self._parents, np.ascontiguousarray(pairs, np.int64).reshape(-1, 2))

    def smallest(self) -> Int64[np.ndarray, " n"]:
        """For every member the smallest one of its component."""
        flatten(self._parents)
        return self._parents.copy()
