"""How many objects a storage has, how many bytes, and which: what has to be found by looking.

Servers ask for both numbers after each transaction. Looking takes a time that grows with the store, so where there
are more than a few objects it is done again only when a hundred times as long has passed.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable
from threading import Lock

from objstore.contracts import Filesystem
from objstore.engine.store import DirectoryStore
from objstore.ids import Oid, number, oid_from

FEW = 100
"""Of so many objects what was found is never taken for true any longer."""
SHARE = 100
"""How many times as long as it took, what was found is taken for true."""

Load = Callable[[bytes], tuple[bytes, bytes]]


class Measure:
    """Counts a store. May be used by any thread."""

    def __init__(self, store: DirectoryStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()  # guards what follows
        self._until = 0.0
        self._objects = 0
        self._bytes = 0
        self._oids = array("Q")  # of the walk over all objects that was begun last

    @property
    def objects(self) -> int:
        """Objects, those that nothing refers to included."""
        with self._lock:
            self._look()
            return self._objects

    @property
    def size(self) -> int:
        """Bytes of the files that hold them."""
        with self._lock:
            self._look()
            return self._bytes

    def forget(self) -> None:
        """Look again when next asked: much has changed."""
        with self._lock:
            self._until = 0.0
            del self._oids[:]

    def _look(self) -> None:
        begun = self._clock()
        if begun < self._until:
            return
        store = self._store
        waiting = self._waiting()
        self._objects = sum(1 for _ in store.home.oids()) + sum(store.home.current(oid) is None for oid in waiting)
        places = (store.directory.home, store.directory.journal)
        self._bytes = sum(_bytes_below(store.filesystem, place) for place in places)
        ended = self._clock()
        self._until = ended + SHARE * (ended - begun) if self._objects > FEW else 0.0

    def _waiting(self) -> set[Oid]:
        """What was written by transactions that are not flushed. Asked before the home, which has it later."""
        found: set[Oid] = set()
        flushed = self._store.flushed
        for transaction in self._store.transactions():
            if transaction.tid <= flushed:
                break
            found.update(transaction.oids)
        return found

    def record_after(self, cookie: bytes | None, load: Load) -> tuple[bytes, bytes, bytes, bytes | None]:
        """The first current record at or after a cookie: oid, serial, data, and the cookie of the next.

        Raises ValueError where there is none.
        """
        with self._lock:
            if cookie is None or not self._oids:
                known = {*self._waiting(), *self._store.home.oids()}
                self._oids = array("Q", sorted(map(number, known)))
            oids = self._oids
        at = bisect_left(oids, number(cookie)) if cookie is not None else 0
        found = None
        while at < len(oids):
            oid = oid_from(oids[at])
            at += 1
            try:
                data, serial = load(oid)
            except KeyError:  # deleted
                continue
            if found is not None:
                return (*found, oid)
            found = (oid, serial, data)
        if found is None:
            raise ValueError("there is no record here")
        return (*found, None)


def _bytes_below(filesystem: Filesystem, path: str) -> int:
    total = 0
    try:
        for entry in filesystem.entries(path):
            below = f"{path}/{entry.name}"
            total += _bytes_below(filesystem, below) if entry.is_directory else filesystem.size(below)
    except FileNotFoundError:  # flushed, merged or packed away meanwhile
        return total
    return total
