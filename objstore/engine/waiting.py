"""The journal's index: which revisions the journal holds, looked up by oid.

There may be a million of them, so each is one number: the turn of its transaction, and its position in that. An
object of which one revision waits, as most, has the number itself for its entry, the others a list of them, oldest
first.

Lookups take no lock. A list only grows at its end, and is replaced, not shortened, when its first entries were
flushed; the dictionary's operations are atomic. Where most of it was flushed, it is made anew of the rest.

A signal such as Ctrl-C may break off a change anywhere. What it leaves is taken back before the next change: so
to add or to remove again what has been broken off comes to the same as if it never was.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import takewhile
from threading import Lock
from typing import NamedTuple

from objstore.engine.journal import Waiting
from objstore.ids import NO_TID, Oid, Tid

MAX_KEPT = 8 * 2**20
"""While so many bytes wait at most, what this process wrote itself is kept in memory, and not read again."""
_BITS = 32
_AT = (1 << _BITS) - 1


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
        self._held: dict[Oid, int | list[int]] = {}
        self._turn = 0
        self._turns: dict[Tid, int] = {}
        self._transactions: dict[int, Waiting] = {}  # by turn
        self._bytes = 0
        self._adding: Waiting | None = None  # what is being added; still there if that was broken off
        self._lock = Lock()  # guards changes; a leaf

    def add(self, waiting: Waiting) -> None:
        """Add a transaction; nothing, if it is there already."""
        with self._lock:
            self._take_back()
            if waiting.tid in self._turns:
                return
            if waiting.content is not None and self._bytes + waiting.size > MAX_KEPT:
                waiting = waiting._replace(content=None)
            self._adding = waiting
            self._turn += 1
            self._transactions[self._turn] = waiting  # first, because who finds a revision asks for it
            _enter(self._held, self._turn, waiting)
            self._bytes += waiting.size
            self._turns[waiting.tid] = self._turn
            self._adding = None

    def _take_back(self) -> None:
        """Take back what was left of an addition that was broken off."""
        broken = self._adding
        if broken is None:
            return
        if broken.tid not in self._turns:
            turns = [turn for turn, waiting in self._transactions.items() if waiting.tid == broken.tid]
            for oid in broken.transaction.oids:
                self._drop(oid, lambda number: number >> _BITS in turns)
            for turn in turns:
                del self._transactions[turn]
            self._bytes = sum(waiting.size for waiting in self._transactions.values())
        self._adding = None

    def _drop(self, oid: Oid, is_gone: Callable[[int], bool]) -> None:
        """Forget some of an object's revisions."""
        known = self._held.get(oid, [])
        left = [number for number in ([known] if isinstance(known, int) else known) if not is_gone(number)]
        if left:
            self._held[oid] = left
        else:
            self._held.pop(oid, None)

    def remove_upto(self, tid: Tid) -> None:
        """Forget the transactions up to `tid`, which the home has now."""
        with self._lock:
            self._take_back()
            flushed = dict(takewhile(lambda item: item[1].tid <= tid, self._transactions.items()))
            if not flushed:
                return
            last = max(flushed)
            left = {turn: waiting for turn, waiting in self._transactions.items() if turn > last}
            if _revisions(left) < _revisions(flushed):
                self._held = _entered(left)
            else:
                self._forget(flushed, (last + 1) << _BITS)
            for turn, waiting in flushed.items():
                self._turns.pop(waiting.tid, None)
                del self._transactions[turn]
            self._bytes = sum(waiting.size for waiting in left.values())

    def _forget(self, flushed: dict[int, Waiting], bound: int) -> None:
        """Drop all numbers below a bound, which is beyond those of some transactions."""
        held = self._held
        for oid in {oid for waiting in flushed.values() for oid in waiting.transaction.oids}:
            known = held.get(oid)
            if isinstance(known, int):
                if known < bound:
                    del held[oid]
            elif known is not None:
                later = known[bisect_left(known, bound) :]
                if later:
                    held[oid] = later
                else:
                    del held[oid]

    def _tid(self, number: int) -> Tid:
        """The tid of a revision; that of none where it was flushed this moment."""
        waiting = self._transactions.get(number >> _BITS)
        return waiting.tid if waiting is not None else NO_TID

    def _revision(self, number: int) -> Held | None:
        waiting = self._transactions.get(number >> _BITS)
        return Held(waiting, number & _AT) if waiting is not None else None

    def find(self, oid: Oid, upto: Tid) -> Held | None:
        """The newest revision of an object with tid <= `upto`; None where the journal holds none."""
        known = self._held.get(oid)
        if known is None:
            return None
        found = self._revision(known if isinstance(known, int) else known[-1])
        if found is None or found.waiting.tid <= upto:
            return found
        if isinstance(known, int):
            return None
        before = bisect_right(known, upto, key=self._tid)
        return self._revision(known[before - 1]) if before else None

    def newest(self, oid: Oid) -> Tid | None:
        """The newest serial of an object, durable or not; None where the journal holds none."""
        known = self._held.get(oid)
        found = None if known is None else self._revision(known if isinstance(known, int) else known[-1])
        return found.waiting.tid if found is not None else None

    def of_object(self, oid: Oid) -> list[Held]:
        """What the journal holds of an object, oldest first."""
        known = self._held.get(oid, [])
        numbers = [known] if isinstance(known, int) else list(known)
        return [found for number in numbers if (found := self._revision(number)) is not None]

    def holds(self, tid: Tid) -> bool:
        """Whether this transaction still waits."""
        return tid in self._turns

    def transaction(self, tid: Tid) -> Waiting | None:
        turn = self._turns.get(tid)
        return self._transactions.get(turn) if turn is not None else None

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


def _revisions(transactions: dict[int, Waiting]) -> int:
    return sum(len(waiting.transaction.oids) for waiting in transactions.values())


def _entered(transactions: dict[int, Waiting]) -> dict[Oid, int | list[int]]:
    """The numbers of the revisions of some transactions, by oid."""
    held: dict[Oid, int | list[int]] = {}
    for turn, waiting in transactions.items():
        _enter(held, turn, waiting)
    return held


def _enter(held: dict[Oid, int | list[int]], turn: int, waiting: Waiting) -> None:
    """Add the numbers of a transaction's revisions, which are higher than all that are there."""
    oids = waiting.transaction.oids
    numbers = range(turn << _BITS, (turn << _BITS) + len(oids))
    if held.keys().isdisjoint(oids):
        held.update(zip(oids, numbers, strict=True))
        return
    for oid, number in zip(oids, numbers, strict=True):
        known = held.get(oid)
        if known is None:
            held[oid] = number
        elif isinstance(known, int):
            held[oid] = [known, number]
        else:
            known.append(number)
