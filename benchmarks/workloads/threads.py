"""How many commits a second several threads make, each of its own object, with a session of its own."""

from __future__ import annotations

import time
from threading import Barrier, Thread

from metrics import Measures, Metric, ratio_at_least
from peers.protocol import Ability, Peer, Session
from places import Place
from recipes import add
from sizes import Sizes

from workloads.protocol import Workload, expect

_COMMITS = 800
"""In a round, by all threads together."""
_APART = 1_000
"""How far the threads' objects are from each other."""


class ThreadsRun:
    """Threads that start together and make the same number of commits each."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes, threads: int) -> None:
        self._commits = sizes.of(_COMMITS // threads, least=2)
        self._store = peer.open(place.fresh("threads"))
        session = self._store.session()
        add(session, range(0, threads * _APART, 10), 1_000)
        session.close()
        self._sessions = [self._store.session() for _ in range(threads)]
        for thread, session in enumerate(self._sessions):
            session.hold([thread * _APART])
            session.read()
        self._store.settle()
        self._number = 0

    def round(self, number: int) -> Measures:  # noqa: ARG002 - nothing is left to chance
        barrier = Barrier(len(self._sessions) + 1)
        failures: list[BaseException] = []
        threads = [
            Thread(target=self._commit, args=(session, barrier, failures), daemon=True)
            for session in self._sessions
        ]
        for thread in threads:
            thread.start()
        barrier.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        if failures:
            raise failures[0]
        self._number += self._commits
        began = time.perf_counter()
        self._store.settle()
        settled = time.perf_counter() - began
        commits = self._commits * len(self._sessions)
        return {"commits/s": commits / seconds, "commits/s, settled": commits / (seconds + settled)}

    def _commit(self, session: Session, barrier: Barrier, failures: list[BaseException]) -> None:
        barrier.wait()
        try:
            for number in range(self._number + 1, self._number + self._commits + 1):
                session.change(number)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)

    def finish(self) -> None:
        for session in self._sessions:
            session.forget()
            expect("number of a thread's last commit", session.read(), self._number)
            session.close()
        self._store.close()


def _workload(threads: int) -> Workload:
    return Workload(
        name=f"threads-{threads}",
        title=f"commits/s of {threads} threads, each its own object",
        metrics=(
            Metric("commits/s", "/s", ratio_at_least(2), lower_is_better=False),
            Metric("commits/s, settled", "/s", lower_is_better=False),
        ),
        start=lambda peer, place, sizes: ThreadsRun(peer, place, sizes, threads),
        rounds=5,
        needs=Ability.THREADS,
    )


WORKLOADS = (_workload(4), _workload(8))
