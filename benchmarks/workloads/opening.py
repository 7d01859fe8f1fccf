"""How long it takes to open a store and look at its root: after a clean close, and after SIGKILL.

The process that is killed has opened the store, and made a hundred commits of ten objects, all acknowledged.
The process that opens has its imports behind it; `workloads.process` measures with them.
"""

from __future__ import annotations

import time

from aside import kill_while_committing
from building import copied
from metrics import Measures, Metric, at_most
from peers.protocol import Ability, Peer
from places import Place
from recipes import Recipe
from sizes import Sizes

from workloads.protocol import Workload

_OBJECTS, _BATCH = 100_000, 1_000
_LARGE = 1_000_000
_LONGEST_MS = 60.0


class OpeningRun:
    """Opens a copy of a store that was built for several workloads."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes, count: int) -> None:
        recipe = Recipe(sizes.of(count), sizes.of(_BATCH, least=10))
        self._peer = peer
        self._name = place.peer
        self._count = recipe.count
        self._directory = copied(place, recipe, "opening")

    def round(self, number: int) -> Measures:  # noqa: ARG002 - always the same
        measures = {"clean": self._open()}
        kill_while_committing(self._name, self._directory, self._count)
        measures["after SIGKILL"] = self._open()
        return measures

    def _open(self) -> float:
        began = time.perf_counter()
        store = self._peer.open(self._directory)
        session = store.session()
        seconds = time.perf_counter() - began
        session.close()
        store.close()
        return seconds * 1e3

    def finish(self) -> None:
        """Every round has closed what it opened."""


def _workload(name: str, count: int, *, large: bool) -> Workload:
    return Workload(
        name=name,
        title=f"opening a store of {count:,} objects",
        metrics=(
            Metric("clean", "ms", at_most(_LONGEST_MS)),
            Metric("after SIGKILL", "ms", at_most(_LONGEST_MS)),
        ),
        start=lambda peer, place, sizes: OpeningRun(peer, place, sizes, count),
        rounds=5,
        needs=Ability.LASTS,
        large=large,
    )


WORKLOADS = (_workload("open", _OBJECTS, large=False), _workload("open-large", _LARGE, large=True))
