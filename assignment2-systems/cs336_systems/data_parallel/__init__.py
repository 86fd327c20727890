"""Data parallelism: every rank holds the whole model, and gradients are averaged over the ranks.

Four ways to send the gradients, from the plainest to the fastest; all give the same numbers.
"""

from cs336_systems.data_parallel.bucketed import BucketedDDP
from cs336_systems.data_parallel.flat import FlatDDP
from cs336_systems.data_parallel.naive import NaiveDDP
from cs336_systems.data_parallel.overlapped import OverlappedDDP

__all__ = ["BucketedDDP", "FlatDDP", "NaiveDDP", "OverlappedDDP"]
