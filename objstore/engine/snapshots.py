"""Who reads at which snapshot: this process's part of the reader table, and the horizon that follows from it all.

What a snapshot of a live reader needs is neither packed away nor, in Minimal, overwritten by a flush. A
reader that holds back more than the store allows loses its snapshot instead: it is told with
SnapshotTooOldError, and writers go on.

A reader writes its snapshot on the board, then looks whether anything newer is durable, and begins anew if so.
Who computes the horizon notes what is durable, then reads the table. So either the reader was seen, or its
snapshot is not older than what was noted.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from objstore.engine.commits import Commits
from objstore.engine.membership import Membership
from objstore.ids import Tid, number, tid_from
from objstore.machine.board import EXPIRED


class Slot:
    """One reader: its snapshot, and whether it lost it. Only `Snapshots` changes it."""

    __slots__ = ("_words", "fixed", "place", "snapshot")

    def __init__(self, words: memoryview, place: int, fixed: bool) -> None:
        self._words = words
        self.place = place
        self.snapshot = Tid(bytes(8))
        self.fixed = fixed

    @property
    def expired(self) -> bool:
        """Whether the snapshot was taken from its reader."""
        return bool(self._words[self.place] >= EXPIRED)


class Snapshots:
    """The readers of this process. May be used by any thread."""

    def __init__(self, commits: Commits, membership: Membership) -> None:
        self._commits = commits
        self._membership = membership
        self.catch_up: Callable[[], None] = lambda: None
        """Takes over what other processes have committed."""
        self._slots: set[Slot] = set()
        self._lock = Lock()  # a leaf: guards the set

    def open(self, at: Tid | None = None) -> Slot:
        """A slot at the newest durable transaction, or fixed at an earlier tid. Raises StorageError."""
        slot = Slot(self._membership.board.words, self._membership.place(), at is not None)
        try:
            self._pin(slot, at)
        except BaseException:
            self._membership.leave(slot.place)
            raise
        with self._lock:
            self._slots.add(slot)
        return slot

    def _pin(self, slot: Slot, at: Tid | None = None) -> None:
        """Hold the newest durable snapshot, or an earlier one, from nothing."""
        while True:
            self.catch_up()
            durable = self._commits.durable
            slot.snapshot = durable if at is None else min(at, durable)
            self._membership.hold(slot.place, _word(slot.snapshot))
            if slot.snapshot < durable or not self._commits.is_behind:
                return

    def move(self, slot: Slot, to: Tid) -> bool:
        """Move a slot on to a durable tid; False, and nothing moved, where it has lost its snapshot."""
        if slot.expired:
            return False
        self._membership.hold(slot.place, _word(to))
        slot.snapshot = to
        return True

    def renew(self, slot: Slot) -> Tid:
        """Give a slot that lost its snapshot the newest durable one; the new one."""
        self._pin(slot)
        return slot.snapshot

    def close(self, slot: Slot) -> None:
        """Let go of a snapshot. May be repeated."""
        with self._lock:
            if slot not in self._slots:
                return
            self._slots.discard(slot)
        self._membership.leave(slot.place)

    def horizon(self) -> Tid:
        """The oldest snapshot in use, of any process; `durable` where nobody reads."""
        return tid_from(self._membership.horizon(number(self._commits.durable)))

    def expire(self, before: Tid) -> int:
        """Take the snapshots older than `before` from their readers; how many lost theirs."""
        return self._membership.board.expire(number(before))

    @property
    def count(self) -> int:
        return len(self._slots)


def _word(snapshot: Tid) -> int:
    """What stands for a snapshot on the board, where 0 stands for none."""
    return max(1, number(snapshot))
