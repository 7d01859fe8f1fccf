"""The journal's index: which revisions the journal holds, looked up by oid.

Lookups take no lock. A list of an object's revisions only grows at its end, and is replaced, not shortened,
when its first entries were flushed; the dictionary's operations are atomic.
"""

from __future__ import annotations

from bisect import bisect_right
from threading import Lock
from typing import NamedTuple

from objstore.engine.journal import Waiting
from objstore.ids import Oid, Tid

_END = 2**62
"""More than a transaction has records."""


class Held(NamedTuple):
    """One revision that the journal holds: the record at a position of a transaction."""

    waiting: Waiting
    at: int

    @property
    def tid(self) -> Tid:
        return self.waiting.tid


class WaitingIndex:
    """The transactions that wait to be flushed, oldest first, and their revisions by oid.

    `add` and `remove` may be called by different threads; `add` in the order of tids only.
    """

    def __init__(self) -> None:
        # Plain tuples of tid and position: there may be a million, and these are nothing to garbage collection.
        self._held: dict[Oid, list[tuple[Tid, int]]] = {}
        self._transactions: dict[Tid, Waiting] = {}
        self._bytes = 0
        self._lock = Lock()  # guards changes; a leaf

    def add(self, waiting: Waiting) -> None:
        held, tid = self._held, waiting.tid
        with self._lock:
            self._transactions[tid] = waiting  # first, because who finds a revision asks for it
            for at, oid in enumerate(waiting.transaction.oids):
                entries = held.get(oid)
                if entries is None:
                    held[oid] = [(tid, at)]
                else:
                    entries.append((tid, at))
            self._bytes += waiting.size

    def remove(self, flushed: list[Waiting]) -> None:
        """Forget the oldest transactions, which the home has now."""
        held, upto = self._held, (flushed[-1].tid, _END)
        with self._lock:
            for oid in {oid for waiting in flushed for oid in waiting.transaction.oids}:
                entries = held[oid]
                first = bisect_right(entries, upto)
                if first == len(entries):
                    del held[oid]
                else:
                    held[oid] = entries[first:]
            for waiting in flushed:
                del self._transactions[waiting.tid]
                self._bytes -= waiting.size

    def find(self, oid: Oid, upto: Tid) -> Held | None:
        """The newest revision of an object with tid <= `upto`; None where the journal holds none."""
        entries = self._held.get(oid)
        if not entries:
            return None
        tid, at = entries[-1]
        if tid > upto:
            before = bisect_right(entries, (upto, _END))
            if not before:
                return None
            tid, at = entries[before - 1]
        waiting = self._transactions.get(tid)
        return Held(waiting, at) if waiting is not None else None  # else it was flushed this moment

    def newest(self, oid: Oid) -> Tid | None:
        """The newest serial of an object, durable or not; None where the journal holds none."""
        entries = self._held.get(oid)
        return entries[-1][0] if entries else None

    def of_object(self, oid: Oid) -> list[Held]:
        """What the journal holds of an object, oldest first."""
        found = ((self._transactions.get(tid), at) for tid, at in list(self._held.get(oid, ())))
        return [Held(waiting, at) for waiting, at in found if waiting is not None]

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
