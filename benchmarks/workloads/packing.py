"""How long a pack takes, of a store in which one object in five has five revisions, and one in five is garbage."""

from __future__ import annotations

import shutil
import time

import aside
from building import copied
from metrics import Measures, Metric, at_most, ratio_at_most
from peers.protocol import Ability, Peer
from places import Place, allocated_bytes
from recipes import Recipe
from sizes import Sizes

from workloads.protocol import Workload, expect

_OBJECTS, _BATCH = 100_000, 1_000
_LARGE = 1_000_000
_LONGEST_SECONDS = 60.0
_MOST_MEGABYTES = 200.0


class PackRun:
    """Every round packs a copy of its own."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes) -> None:
        self._peer = peer
        self._place = place
        self._recipe = Recipe(sizes.of(_OBJECTS), sizes.of(_BATCH, least=10), churned=True)

    def round(self, number: int) -> Measures:
        directory = copied(self._place, self._recipe, f"pack-{number}")
        before = allocated_bytes(directory)
        store = self._peer.open(directory)
        began = time.perf_counter()
        store.pack()
        seconds = time.perf_counter() - began
        session = store.session()
        session.hold(self._recipe.kept)
        revised = self._recipe.count // 5
        expect("sum after the pack", session.read(), revised * 4 + sum(self._recipe.kept[revised:]))
        session.close()
        store.close()
        after = allocated_bytes(directory)
        shutil.rmtree(directory)
        return {"seconds": seconds, "megabytes before": before / 1e6, "megabytes after": after / 1e6}

    def finish(self) -> None:
        """Every round has closed what it opened."""


class LargePackRun:
    """Packs in a process of its own, whose memory is measured."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes) -> None:  # noqa: ARG002 - opened elsewhere
        self._place = place
        self._recipe = Recipe(sizes.of(_LARGE), sizes.of(_BATCH, least=10), churned=True)

    def round(self, number: int) -> Measures:
        directory = copied(self._place, self._recipe, f"pack-{number}")
        measures = aside.call("pack", self._place.peer, directory)
        shutil.rmtree(directory)
        return measures

    def finish(self) -> None:
        """Nothing is open here."""


WORKLOADS = (
    Workload(
        name="pack",
        title="pack, 100,000 objects, 20,000 with 5 revisions, 20% garbage",
        metrics=(Metric("seconds", "s", ratio_at_most(0.3)),),
        start=PackRun,
        rounds=3,
        quick_rounds=2,
        needs=Ability.LASTS | Ability.PACKS,
    ),
    Workload(
        name="pack-large",
        title="pack, 1,000,000 objects, 200,000 with 5 revisions, 20% garbage",
        metrics=(
            Metric("seconds", "s", at_most(_LONGEST_SECONDS)),
            Metric("peak memory", "MB", at_most(_MOST_MEGABYTES)),
        ),
        start=LargePackRun,
        rounds=1,
        quick_rounds=1,
        needs=Ability.LASTS | Ability.PACKS,
        large=True,
    ),
)
