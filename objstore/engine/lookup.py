"""Looking a revision up: the journal first, then the home. No lock is taken.

A revision moves from the journal to the home while others read. The home has it before the journal's index
forgets it, and the index of the process that flushes forgets it before its file is recycled. So: who does not
find it in the index finds it in the home, and who finds it in the index, but no longer in the file, catches up
with the others and looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from objstore.contracts import Home
from objstore.engine.journal import Journal
from objstore.engine.waiting import Held, WaitingIndex
from objstore.errors import CorruptionError
from objstore.ids import Oid, Tid
from objstore.revisions import Revision, RevisionSummary, Transaction


class Lookup:
    """Finds revisions and transactions wherever they stand."""

    def __init__(self, journal: Journal, index: WaitingIndex, home: Home) -> None:
        self.journal = journal
        self.index = index
        self.home = home
        self.catch_up: Callable[[], None] = lambda: None
        """Takes over what other processes have flushed."""

    def _waits(self, tid: Tid) -> bool:
        """Whether a transaction still waits, whoever may have flushed it."""
        if self.index.holds(tid):
            self.catch_up()
        return self.index.holds(tid)

    def newest(self, oid: Oid) -> Tid | None:
        """The newest serial of an object, durable or not; None where nothing is stored of it."""
        return self.index.newest(oid) or self.home.current(oid)

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        """The newest revision with tid <= `upto`, deleted ones included; None where there is none."""
        while (held := self.index.find(oid, upto)) is not None:
            revision = self._read(held)
            if revision is not None:
                return revision
        return self.home.load(oid, upto)

    def record(self, oid: Oid, upto: Tid) -> tuple[bytes | None, Tid] | None:
        """Data and tid of the revision that `load` gives."""
        if self.index.find(oid, upto) is None:
            return self.home.record(oid, upto)
        revision = self.load(oid, upto)
        return (revision.data, revision.tid) if revision is not None else None

    def revision(self, oid: Oid, tid: Tid) -> Revision | None:
        """The revision of just this tid, however many are newer; None where there is none."""
        held = self.index.find(oid, tid)
        revision = self._read(held) if held is not None and held.tid == tid else None
        return revision if revision is not None else self.home.revision(oid, tid)

    def _read(self, held: Held) -> Revision | None:
        """A revision of the journal; None where it has been flushed since."""
        try:
            return self.journal.revision(held.waiting, held.at)
        except (OSError, CorruptionError):
            if self._waits(held.tid):
                raise
            return None

    def summaries(self, oid: Oid, upto: Tid) -> Iterator[RevisionSummary]:
        """An object's revisions with tid <= `upto`, newest first."""
        told: Tid | None = None
        for held in reversed(self.index.of_object(oid)):
            if held.tid <= upto:
                summary = self.summary(held)
                if summary is None:  # flushed since, so the home tells of it and of all before it
                    break
                told = held.tid
                yield summary
        for summary in self.home.summaries(oid):
            if summary.tid <= upto and (told is None or summary.tid < told):
                yield summary

    def summary(self, held: Held) -> RevisionSummary | None:
        """One revision of the journal without its data; None where it has been flushed since."""
        try:
            return self.journal.summary(held.waiting, held.at)
        except (OSError, CorruptionError):
            if self._waits(held.tid):
                raise
            return None

    def transaction(self, tid: Tid) -> Transaction | None:
        waiting = self.index.transaction(tid)
        return waiting.transaction if waiting is not None else self.home.transaction(tid)

    def transactions(self, upto: Tid) -> Iterator[Transaction]:
        """The transactions with tid <= `upto`, newest first, as far as they are kept."""
        told = upto
        first = True
        for waiting in reversed(self.index.transactions()):
            if waiting.tid <= upto:
                told, first = waiting.tid, False
                yield waiting.transaction
        for transaction in self.home.transactions(told):
            if first or transaction.tid < told:
                yield transaction
