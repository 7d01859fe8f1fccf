"""The journal's index: which revisions the journal holds, looked up by oid.

Lookups take no lock. A list of an object's revisions only grows at its end, and is replaced, not shortened,
when its first entries were flushed; the dictionary's operations are atomic.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from threading import Lock
from typing import NamedTuple

from objstore.engine.journal import Waiting
from objstore.formats.transactions import Place
from objstore.ids import Oid, Tid

_BY_TID = attrgetter("tid")


class Held(NamedTuple):
    """One revision that the journal holds."""

    tid: Tid
    oid: Oid
    waiting: Waiting
    place: Place


class WaitingIndex:
    """The transactions that wait to be flushed, oldest first, and their revisions by oid.

    `add` and `remove` may be called by different threads; `add` in the order of tids only.
    """

    def __init__(self) -> None:
        self._held: dict[Oid, list[Held]] = {}
        self._transactions: dict[Tid, Waiting] = {}
        self._bytes = 0
        self._lock = Lock()  # guards changes; a leaf

    def add(self, waiting: Waiting) -> None:
        with self._lock:
            for oid, place in zip(waiting.transaction.oids, waiting.places, strict=True):
                self._held.setdefault(oid, []).append(Held(waiting.tid, oid, waiting, place))
            self._transactions[waiting.tid] = waiting
            self._bytes += waiting.size

    def remove(self, flushed: list[Waiting]) -> None:
        """Forget the oldest transactions, which the home has now."""
        upto = flushed[-1].tid
        with self._lock:
            for oid in {oid for waiting in flushed for oid in waiting.transaction.oids}:
                entries = self._held[oid]
                first = bisect_right(entries, upto, key=_BY_TID)
                if first == len(entries):
                    del self._held[oid]
                else:
                    self._held[oid] = entries[first:]
            for waiting in flushed:
                del self._transactions[waiting.tid]
                self._bytes -= waiting.size

    def find(self, oid: Oid, upto: Tid) -> Held | None:
        """The newest revision of an object with tid <= `upto`; None where the journal holds none."""
        entries = self._held.get(oid)
        if not entries:
            return None
        at = bisect_right(entries, upto, key=_BY_TID)
        return entries[at - 1] if at else None

    def newest(self, oid: Oid) -> Tid | None:
        """The newest serial of an object, durable or not; None where the journal holds none."""
        entries = self._held.get(oid)
        return entries[-1].tid if entries else None

    def of_object(self, oid: Oid) -> list[Held]:
        """What the journal holds of an object, oldest first."""
        return list(self._held.get(oid, ()))

    def holds(self, tid: Tid) -> bool:
        """Whether this transaction still waits."""
        return tid in self._transactions

    def transaction(self, tid: Tid) -> Waiting | None:
        return self._transactions.get(tid)

    def transactions(self) -> list[Waiting]:
        """Those that wait now, oldest first."""
        with self._lock:
            return list(self._transactions.values())

    def bytes_upto(self, tid: Tid) -> int:
        """The volume of those that wait and are not newer than `tid`."""
        volume = 0
        with self._lock:
            for waiting in self._transactions.values():
                if waiting.tid > tid:
                    break
                volume += waiting.size
        return volume

    @property
    def count(self) -> int:
        return len(self._transactions)

    @property
    def bytes(self) -> int:
        """The volume that waits."""
        return self._bytes
