"""Which layers come next: the order in which the last step used them.

Nothing has to be known about the model: gradient checkpointing, which runs layers again in the backward pass, tied
weights and layers used twice all show in the order. The first step has no predecessor and fetches each layer when it
needs it; so does the rest of a step that leaves the known order.
"""

from cs336_systems.fsdp.sharded_weight import ShardedWeight


class AccessTrace:
    """Predicts, from the last pass of the same kind, which weights will be used next.

    Args:
        distance: how many different weights ahead.
    """

    def __init__(self, distance: int = 2) -> None:
        self.distance = distance
        self._known: dict[bool, list[ShardedWeight]] = {}
        self._kind = False
        self._current: list[ShardedWeight] = []
        self._on_track = False

    def start(self, kind: bool) -> None:
        """A pass begins.

        Args:
            kind: whether a backward pass will follow.
        """
        if self._current:
            self._known[self._kind] = self._current
        self._kind = kind
        self._current = []
        self._on_track = kind in self._known

    def record(self, weight: ShardedWeight) -> list[ShardedWeight]:
        """A weight is used now; returns those that should be used next, the nearest first."""
        expected = self._known.get(self._kind, [])
        position = len(self._current)
        self._current.append(weight)
        self._on_track = self._on_track and position < len(expected) and expected[position] is weight
        if not self._on_track:
            return []
        following = expected[position + 1 : position + 1 + self.distance]
        return list(dict.fromkeys(following))
