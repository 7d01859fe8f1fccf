"""Who reads at which snapshot: the reader table of a process, and the horizon that follows from it.

What a snapshot of a live reader needs is neither packed away nor, in Minimal, overwritten by a flush. A
reader that holds back more than the store allows loses its snapshot instead: it is told with
SnapshotTooOldError, and writers go on.
"""

from __future__ import annotations

from threading import Lock

from objstore.engine.commits import Commits
from objstore.ids import MAX_TID, Tid


class Slot:
    """One reader: its snapshot, and whether it lost it. Only `Snapshots` changes it."""

    __slots__ = ("expired", "fixed", "snapshot")

    def __init__(self, snapshot: Tid, fixed: bool) -> None:
        self.snapshot = snapshot
        self.fixed = fixed
        self.expired = False


class Snapshots:
    """The table of readers. May be used by any thread."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._slots: set[Slot] = set()
        self._lock = Lock()  # rank 4: guards the slots, and the moment between reading `durable` and using it

    def open(self, at: Tid | None = None) -> Slot:
        """A slot at the newest durable transaction, or fixed at an earlier tid."""
        with self._lock:
            durable = self._commits.durable
            slot = Slot(durable if at is None else min(at, durable), at is not None)
            self._slots.add(slot)
            return slot

    def move(self, slot: Slot, to: Tid) -> bool:
        """Move a slot on to a durable tid; False, and nothing moved, where it has lost its snapshot."""
        with self._lock:
            if not slot.expired:
                slot.snapshot = to
            return not slot.expired

    def renew(self, slot: Slot) -> Tid:
        """Give a slot that lost its snapshot the newest durable one; the new one."""
        with self._lock:
            slot.snapshot = self._commits.durable
            slot.expired = False
            return slot.snapshot

    def close(self, slot: Slot) -> None:
        with self._lock:
            self._slots.discard(slot)

    def horizon(self) -> Tid:
        """The oldest snapshot in use; `durable` where nobody reads."""
        with self._lock:
            live = [slot.snapshot for slot in self._slots if not slot.expired]
            return min(live, default=self._commits.durable)

    def expire(self, before: Tid) -> int:
        """Take the snapshots older than `before` from their readers; how many lost theirs."""
        with self._lock:
            old = [slot for slot in self._slots if slot.snapshot < before and not slot.expired]
            for slot in old:
                slot.expired = True
            return len(old)

    @property
    def count(self) -> int:
        return len(self._slots)

    def oldest(self) -> Tid:
        """The oldest snapshot of a reader, MAX_TID where nobody reads."""
        with self._lock:
            return min((slot.snapshot for slot in self._slots), default=MAX_TID)
