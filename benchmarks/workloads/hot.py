"""One object that is changed again and again: commits a second, and how much the store grows by it."""

from __future__ import annotations

import time

from metrics import Measures, Metric, at_most, ratio_at_least
from peers.protocol import Ability, Peer
from places import Place, allocated_bytes
from recipes import add
from sizes import Sizes

from workloads.protocol import AMPLIFICATION, Workload, amplification, expect

_OBJECTS, _COMMITS = 10_000, 2_000
_MOST_MEGABYTES = 5.0


class HotRun:
    """A round opens the store, changes the object two thousand times, and closes the store."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes) -> None:
        self._peer = peer
        self._lasts = Ability.LASTS in peer.abilities
        self._objects = sizes.of(_OBJECTS, least=10)
        self._commits = sizes.of(_COMMITS)
        self._directory = place.fresh("hot")
        self._store = peer.open(self._directory)
        session = self._store.session()
        add(session, range(self._objects), 1_000)
        session.close()
        self._store.settle()
        if self._lasts:
            self._store.close()

    def round(self, number: int) -> Measures:  # noqa: ARG002 - always the same
        before = allocated_bytes(self._directory)
        store = self._peer.open(self._directory) if self._lasts else self._store
        session = store.session()
        session.hold([self._objects // 2])
        session.read()
        began = time.perf_counter()
        for value in range(1, self._commits + 1):
            session.change(value)
        seconds = time.perf_counter() - began
        session.forget()
        expect("number of the last commit", session.read(), self._commits)
        session.close()
        if not self._lasts:
            return {"commits/s": self._commits / seconds}
        store.close()
        grown = allocated_bytes(self._directory) - before
        return {"commits/s": self._commits / seconds, "growth": grown / 1e6, **amplification(store)}

    def finish(self) -> None:
        if not self._lasts:
            self._store.close()


WORKLOADS = (
    Workload(
        name="hot",
        title="one hot object, 2,000 commits",
        metrics=(
            Metric("commits/s", "/s", ratio_at_least(0.9), lower_is_better=False),
            Metric("growth", "MB", at_most(_MOST_MEGABYTES, peer="objstore-minimal"), worst=True),
            AMPLIFICATION,
        ),
        start=HotRun,
        rounds=3,
        quick_rounds=2,
    ),
)
