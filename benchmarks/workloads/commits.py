"""How long a commit takes that changes a number of objects, in one thread, one commit after the other.

The changed objects are in memory, as they are in an application that has just looked at them. A commit is
timed from the first attribute that is set until it has returned.
"""

from __future__ import annotations

import random
import statistics
import time

from metrics import Measures, Metric, ratio_at_most
from peers.protocol import Peer
from places import Place
from recipes import add
from sizes import Sizes

from workloads.protocol import Workload, expect

_OBJECTS = 10_000
_COMMITS = {1: 300, 10: 200, 100: 60, 1_000: 12}
_REQUIRED = {1: 1.15, 10: 0.85, 100: 0.65, 1_000: 0.6}
_FEWEST_COMMITS = 3


class CommitRun:
    """A store of ten thousand items, of which each round changes some, the same ones in all its commits."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes, changed: int) -> None:
        self._changed = changed
        self._commits = sizes.of(_COMMITS[changed], _FEWEST_COMMITS)
        self._objects = max(sizes.of(_OBJECTS), changed)
        self._store = peer.open(place.fresh("commits"))
        self._session = self._store.session()
        add(self._session, range(self._objects), 1_000)
        self._store.settle()
        self._number = 0

    def round(self, number: int) -> Measures:
        self._session.hold(random.Random(number).sample(range(self._objects), self._changed))
        self._session.read()
        seconds = []
        processor = time.process_time()
        for _ in range(self._commits):
            self._number += 1
            began = time.perf_counter()
            self._session.change(self._number)
            seconds.append(time.perf_counter() - began)
        processor = time.process_time() - processor
        began = time.perf_counter()
        self._store.settle()
        settled = time.perf_counter() - began
        seconds.sort()
        return {
            "latency": statistics.median(seconds) * 1e3,
            "mean": statistics.fmean(seconds) * 1e3,
            "10th percentile": seconds[len(seconds) // 10] * 1e3,
            "95th percentile": seconds[len(seconds) * 95 // 100] * 1e3,
            "longest": seconds[-1] * 1e3,
            "processor, all threads": processor / self._commits * 1e3,
            "settling, a commit": settled / self._commits * 1e3,
        }

    def finish(self) -> None:
        self._session.forget()
        expect("sum of what was committed", self._session.read(), self._changed * self._number)
        self._session.close()
        self._store.close()


def _workload(changed: int) -> Workload:
    return Workload(
        name=f"commit-{changed}",
        title=f"commit latency, one thread, changing {changed:,} object{'s' if changed > 1 else ''}",
        metrics=(Metric("latency", "ms", ratio_at_most(_REQUIRED[changed])),),
        start=lambda peer, place, sizes: CommitRun(peer, place, sizes, changed),
        rounds=7,
    )


WORKLOADS = tuple(_workload(changed) for changed in _COMMITS)
