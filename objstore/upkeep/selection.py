"""What of a store is copied: everything, or the current state, as transactions in the order of their tids.

A copy is of one tid, `upto`: what is later is not seen. The one that copies holds a view of it, so that what it
shows stays, and keeps packs away, so that the history before it stays too.

`WholeHistory` gives the transactions as they were. `CurrentState` gives the newest revision of each object,
deleted ones included, under the tids that they have: with each tid a transaction of which nothing is known but
that.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from objstore.contracts import Progress
from objstore.engine.store import DirectoryStore
from objstore.errors import CorruptionError, POSKeyError
from objstore.formats import records
from objstore.ids import NO_TID, Oid, Tid, number, tid_from
from objstore.revisions import Details, Revision, RevisionSummary, Transaction
from objstore.upkeep.sorting import TidSorter

STEP = 1_000
BLOCK = 4_096
UNKNOWN = Details(description="(details were not kept)")
"""What transactions say of themselves of which only the tid is known."""


@dataclass(slots=True)
class Survey:
    """How much is to be copied. `blocks` are those of `BLOCK` bytes, for a file for each revision."""

    transactions: int = 0
    objects: int = 0
    revisions: int = 0
    bytes: int = 0
    """Of the records."""
    details: int = 0
    """Bytes of the transactions' details."""
    blocks: int = 0
    blobs: int = 0
    blob_bytes: int = 0

    def add(self, found: RevisionSummary) -> None:
        if found.blob is not None:
            self.blobs += 1
            self.blob_bytes += found.blob.size
        size = record_size(found)
        self.revisions += 1
        self.bytes += size
        self.blocks += -(-size // BLOCK)


class Selection(Protocol):
    """The revisions of a store that are copied."""

    def survey(self, progress: Progress) -> Survey:
        """Look at all of it, once, before anything else. Raises CorruptionError."""

    def transactions(self) -> Iterator[Transaction]:
        """The transactions, oldest first."""

    def revision(self, oid: Oid, tid: Tid) -> Revision | None:
        """What a transaction wrote of one of its objects; None where that was packed away.

        Raises CorruptionError where it should be there and is not.
        """


def record_size(found: Revision | RevisionSummary) -> int:
    """Bytes of a revision's record."""
    copied = 8 if found.copied_from is not None else 0
    copied += records.BLOB_SIZE if found.blob is not None else 0
    size = found.size if isinstance(found, RevisionSummary) else len(found.data or b"")
    return records.HEADER_SIZE + copied + len(found.references or b"") + size


def _objects(store: DirectoryStore, upto: Tid) -> Iterator[tuple[Oid, Iterator[RevisionSummary]]]:
    """Every object, with its revisions, newest first: those up to a tid."""
    # What waits is listed first: it may be in the home a moment later, and is taken but once.
    waiting = {summary.oid for summary in store.waiting()}
    for oid in waiting:
        yield oid, _upto(store, oid, upto)
    for oid in store.home.oids():
        if oid not in waiting:
            yield oid, _upto(store, oid, upto)


def _upto(store: DirectoryStore, oid: Oid, upto: Tid) -> Iterator[RevisionSummary]:
    return (summary for summary in store.committed(oid) if summary.tid <= upto)


class WholeHistory:
    """All transactions of a Full store, and all of their revisions. Takes eight bytes a transaction."""

    def __init__(self, store: DirectoryStore, upto: Tid) -> None:
        self._store = store
        self._upto = upto
        self._tids = array("Q")

    def survey(self, progress: Progress) -> Survey:
        survey = Survey()
        for transaction in self._store.transactions(self._upto):
            if survey.transactions % STEP == 0:
                progress("reading transactions", survey.transactions, None)
            self._tids.append(number(transaction.tid))
            survey.transactions += 1
            details = transaction.details
            named = (details.user + details.description).encode("utf-8", "surrogateescape")
            text = len(named) + len(details.extension)
            survey.details += 64 + text + 8 * len(transaction.oids)
        self._tids.reverse()
        for done, (oid, summaries) in enumerate(_objects(self._store, self._upto)):
            if done % STEP == 0:
                progress("reading objects", done, None)
            before = survey.revisions
            for summary in summaries:
                self._require_details(oid, summary.tid)
                survey.add(summary)
            survey.objects += survey.revisions > before
        return survey

    def _require_details(self, oid: Oid, tid: Tid) -> None:
        at = bisect_left(self._tids, number(tid))
        if at == len(self._tids) or self._tids[at] != number(tid):
            raise CorruptionError(
                self._store.name, "the details of the transaction that wrote this are missing", oid=oid, tid=tid
            )

    def transactions(self) -> Iterator[Transaction]:
        for at in self._tids:
            transaction = self._store.transaction(tid_from(at))
            if transaction is None:
                raise CorruptionError(self._store.name, "a transaction is gone", tid=tid_from(at))
            yield transaction

    def revision(self, oid: Oid, tid: Tid) -> Revision | None:
        try:
            return self._store.revision(oid, tid)
        except POSKeyError:
            if tid > self._store.packed_upto():
                raise CorruptionError(self._store.name, "a revision is missing", oid=oid, tid=tid) from None
            return None


class CurrentState:
    """The newest revision of each object, in any history mode. `sorter` is the caller's to close."""

    def __init__(self, store: DirectoryStore, upto: Tid, sorter: TidSorter) -> None:
        self._store = store
        self._upto = upto
        self._sorter = sorter

    def survey(self, progress: Progress) -> Survey:
        survey = Survey()
        for done, (oid, summaries) in enumerate(_objects(self._store, self._upto)):
            if done % STEP == 0:
                progress("reading objects", done, None)
            newest = next(summaries, None)
            if newest is not None:
                self._sorter.add(newest.tid, oid)
                survey.objects += 1
                survey.add(newest)
        for _, oids in self._sorter.transactions():
            survey.transactions += 1
            survey.details += 64 + len(UNKNOWN.description) + 8 * len(oids)
        return survey

    def transactions(self) -> Iterator[Transaction]:
        previous = NO_TID
        for tid, oids in self._sorter.transactions():
            yield Transaction(tid, previous, UNKNOWN, oids)
            previous = tid

    def revision(self, oid: Oid, tid: Tid) -> Revision | None:
        try:
            return self._store.revision(oid, tid)
        except POSKeyError:
            raise CorruptionError(self._store.name, "a revision is missing", oid=oid, tid=tid) from None
