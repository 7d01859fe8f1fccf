"""How fast a hundred thousand new objects are stored, a thousand a commit, and what they occupy on the disk.

Two rates: until the last commit had returned, when all is durable; and until the store was closed, when also
whatever the peer put off is done. The bytes are those allocated on the disk after that, by all files.
"""

from __future__ import annotations

import shutil
import time

from metrics import Measures, Metric, ratio_at_least, ratio_at_most
from peers.protocol import Ability, Peer
from places import Place, allocated_bytes
from recipes import add
from sizes import Sizes

from workloads.protocol import AMPLIFICATION, Workload, amplification

_OBJECTS, _BATCH = 100_000, 1_000


class BulkRun:
    """Every round fills a store of its own."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes) -> None:
        self._peer = peer
        self._place = place
        self._objects = sizes.of(_OBJECTS)
        self._batch = sizes.of(_BATCH, least=10)

    def round(self, number: int) -> Measures:
        directory = self._place.fresh(f"bulk-{number}")
        store = self._peer.open(directory)
        session = store.session()
        began = time.perf_counter()
        add(session, range(self._objects), self._batch)
        committed = time.perf_counter()
        session.close()
        store.close()
        closed = time.perf_counter()
        measures: dict[str, float] = {
            "objects/s": self._objects / (committed - began),
            "objects/s to close": self._objects / (closed - began),
        }
        if Ability.LASTS in self._peer.abilities:
            measures["bytes/object"] = allocated_bytes(directory) / self._objects
        shutil.rmtree(directory)
        return {**measures, **amplification(store)}

    def finish(self) -> None:
        """Every round has closed what it opened."""


WORKLOADS = (
    Workload(
        name="bulk-load",
        title="bulk load, 100,000 objects, 1,000 a commit",
        metrics=(
            Metric("objects/s", "/s", ratio_at_least(1.5), lower_is_better=False),
            Metric("objects/s to close", "/s", ratio_at_least(1.5), lower_is_better=False),
            Metric("bytes/object", "B", ratio_at_most(1.2)),
            AMPLIFICATION,
        ),
        start=BulkRun,
        rounds=3,
        quick_rounds=2,
    ),
)
