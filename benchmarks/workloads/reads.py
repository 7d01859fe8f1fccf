"""How fast objects come from the disk's cache into memory: single ghosts in no order, and all values of a BTree.

The cache of objects is emptied before each round; the system's cache of pages is warm.
"""

from __future__ import annotations

import random
import time

from building import copied
from metrics import Measures, Metric, ratio_at_least, ratio_at_most
from peers.protocol import Ability, OpenStore, Peer
from places import Place
from recipes import Recipe
from sizes import Sizes

from workloads.protocol import Workload, expect

_OBJECTS, _BATCH = 100_000, 1_000
_LOADS = 10_000


def _opened(peer: Peer, place: Place, recipe: Recipe) -> OpenStore:
    """A store by the recipe: one that was built and closed before, where the peer can open such a one."""
    if Ability.LASTS in peer.abilities:
        return peer.open(copied(place, recipe, "reads"))
    store = peer.open(place.fresh("reads"))
    recipe.follow(store)
    return store


def _recipe(sizes: Sizes) -> Recipe:
    return Recipe(sizes.of(_OBJECTS), sizes.of(_BATCH, least=10))


class GhostsRun:
    """Ghosts that are there already, in no order: what is measured is only that they are loaded."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes) -> None:
        recipe = _recipe(sizes)
        self._store = _opened(peer, place, recipe)
        self._session = self._store.session()
        self._keys = random.Random(0).sample(recipe.kept, min(sizes.of(_LOADS), recipe.count))
        self._session.hold(self._keys)
        self._session.read()

    def round(self, number: int) -> Measures:  # noqa: ARG002 - always the same ghosts
        self._session.forget()
        began, processor = time.perf_counter(), time.process_time()
        found = self._session.read()
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
        expect("sum of what was loaded", found, sum(self._keys))
        return {"time a load": seconds / len(self._keys) * 1e6, "processor": processor / len(self._keys) * 1e6}

    def finish(self) -> None:
        self._session.close()
        self._store.close()


class ScanRun:
    """All values, from one end to the other, through the nodes of the BTree."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes) -> None:
        recipe = _recipe(sizes)
        self._count = recipe.count
        self._store = _opened(peer, place, recipe)
        self._session = self._store.session()

    def round(self, number: int) -> Measures:  # noqa: ARG002 - always the same values
        self._session.forget()
        began = time.perf_counter()
        found = self._session.scan()
        seconds = time.perf_counter() - began
        expect("sum of what was scanned", found, sum(range(self._count)))
        return {"objects/s": self._count / seconds}

    def finish(self) -> None:
        self._session.close()
        self._store.close()


WORKLOADS = (
    Workload(
        name="ghosts",
        title="random loads of ghosts, page cache warm, of 100,000 objects",
        metrics=(Metric("time a load", "us", ratio_at_most(0.65)),),
        start=GhostsRun,
        rounds=7,
    ),
    Workload(
        name="scan",
        title="scan of a BTree's 100,000 values, object cache empty",
        metrics=(Metric("objects/s", "/s", ratio_at_least(1.5), lower_is_better=False),),
        start=ScanRun,
        rounds=5,
    ),
)
