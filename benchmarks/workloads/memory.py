"""How much memory an open store takes, before any object but the root is loaded."""

from __future__ import annotations

import aside
from building import shared
from metrics import Measures, Metric, at_most
from peers.protocol import Ability, Peer
from places import Place
from recipes import Recipe
from sizes import Sizes

from workloads.protocol import Workload

_OBJECTS, _BATCH = 1_000_000, 1_000
_MOST_MEGABYTES = 40.0


class MemoryRun:
    """Resident memory of a process with the store open, less what it had with its imports alone."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes) -> None:  # noqa: ARG002 - opened elsewhere
        self._peer = place.peer
        self._directory = shared(place, Recipe(sizes.of(_OBJECTS), sizes.of(_BATCH, least=10)))

    def round(self, number: int) -> Measures:  # noqa: ARG002 - always the same
        return aside.call("memory", self._peer, self._directory)

    def finish(self) -> None:
        """Nothing is open here."""


WORKLOADS = (
    Workload(
        name="memory-large",
        title="resident memory of an open store of 1,000,000 objects, nothing loaded",
        metrics=(Metric("memory", "MB", at_most(_MOST_MEGABYTES)),),
        start=MemoryRun,
        rounds=3,
        quick_rounds=1,
        needs=Ability.LASTS,
        large=True,
    ),
)
