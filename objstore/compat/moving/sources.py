"""Where data comes from: the transactions of a store, of objstore's own or adopted, in the order of their commits.

Records are read one by one as they are taken, so that a transaction may be larger than memory. What is current is
sorted by transaction on the disk (`upkeep.sorting`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from objstore.compat.adopted import AdoptedStore
from objstore.compat.adopted.datafile import Unread
from objstore.compat.adopted.reading import iterated
from objstore.compat.moving.blobs import blob_digest
from objstore.contracts import History
from objstore.engine.store import DirectoryStore
from objstore.errors import CorruptionError, POSKeyError
from objstore.ids import NO_TID, Oid, Tid, number, tid_from
from objstore.revisions import Details
from objstore.upkeep.selection import UNKNOWN, CurrentState
from objstore.upkeep.sorting import TidSorter


@dataclass(frozen=True, slots=True)
class MovedRecord:
    """What a transaction wrote of one object. `data` None deleted it; `copied_from` is as for a `Revision`."""

    oid: Oid
    data: bytes | None
    references: bytes | None
    copied_from: Tid | None


@dataclass(frozen=True, slots=True)
class MovedTransaction:
    """A transaction on its way. `records` can be read once."""

    tid: Tid
    details: Details
    records: Iterator[MovedRecord]


class Source(Protocol):
    """A store to be read from. Used by one thread."""

    @property
    def name(self) -> str: ...

    def last_tid(self) -> Tid:
        """The newest transaction."""

    def transactions(self, after: Tid, upto: Tid) -> Iterator[MovedTransaction]:
        """The transactions with `after` < tid <= `upto`, oldest first, as far as they are kept."""

    def current(self, after: Tid, upto: Tid) -> Iterator[MovedTransaction]:
        """Of these, what is current at `upto`. Where no history is kept, what was superseded since is left out."""

    def current_tid(self, oid: Oid) -> Tid:
        """The tid of the newest revision of an object; NO_TID where there is none."""

    def has(self, tid: Tid) -> bool:
        """Whether there is a transaction `tid`. Raises CorruptionError where that cannot be told."""

    def blob_digest(self, oid: Oid, tid: Tid) -> bytes | None:
        """A digest of the data of a blob; None where they are missing."""

    def unread(self) -> Unread | None:
        """What could not be read of a FileStorage's file, behind all that was; None where nothing was left."""


class DirectorySource:
    """A store of objstore's own. A Minimal one has what is current only."""

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store
        self.name = store.name

    def last_tid(self) -> Tid:
        return self._store.last_tid()

    def transactions(self, after: Tid, upto: Tid) -> Iterator[MovedTransaction]:
        store = self._store
        if store.history_mode is History.MINIMAL:
            yield from self.current(after, upto)
            return
        tids = array("Q")  # eight bytes for each
        for transaction in store.transactions(upto):
            if transaction.tid <= after:
                break
            tids.append(number(transaction.tid))
        for at in reversed(tids):
            found = store.transaction(tid_from(at))
            if found is not None:  # else it was packed away meanwhile
                yield MovedTransaction(found.tid, found.details, self._records(found.tid, found.oids))

    def current(self, after: Tid, upto: Tid) -> Iterator[MovedTransaction]:
        with closing(self._store.view()) as view, TidSorter() as sorter:  # what the view shows stays
            state = CurrentState(self._store, min(upto, view.snapshot), sorter)
            state.survey(lambda *_: None)
            for transaction in state.transactions():
                if transaction.tid > after:
                    known = self._store.transaction(transaction.tid)
                    details = known.details if known is not None else UNKNOWN
                    records = self._records(transaction.tid, transaction.oids)
                    yield MovedTransaction(transaction.tid, details, records)

    def _records(self, tid: Tid, oids: tuple[Oid, ...]) -> Iterator[MovedRecord]:
        for oid in oids:
            try:
                found = self._store.revision(oid, tid)
            except POSKeyError:  # packed away
                continue
            yield MovedRecord(oid, found.data, found.references, found.copied_from)

    def current_tid(self, oid: Oid) -> Tid:
        return next((each.tid for each in self._store.committed(oid)), NO_TID)

    def has(self, tid: Tid) -> bool:
        if self._store.history_mode is History.FULL:
            return self._store.transaction(tid) is not None
        return any(each.tid == tid for each in self.current(tid_from(number(tid) - 1), tid))

    def blob_digest(self, oid: Oid, tid: Tid) -> bytes | None:
        return blob_digest(self._store, oid, tid)

    def unread(self) -> None:
        """A store of ours raises CorruptionError for what it cannot read."""


class AdoptedSource:
    """A storage of ZODB's."""

    def __init__(self, store: AdoptedStore) -> None:
        self._store = store
        self.name = store.name

    def last_tid(self) -> Tid:
        return self._store.last_tid()

    def transactions(self, after: Tid, upto: Tid) -> Iterator[MovedTransaction]:
        return self._iterated(after, upto, lambda _oid, _tid: True)

    def current(self, after: Tid, upto: Tid) -> Iterator[MovedTransaction]:
        with TidSorter() as sorter:
            self._survey(sorter, upto)
            wanted = _Wanted(sorter)
            for moved in self._iterated(after, upto, wanted.has):
                if wanted.is_here(moved.tid):
                    yield moved

    def _survey(self, sorter: TidSorter, upto: Tid) -> None:
        """Sort the newest revision of each object by transaction. All is read for that: not every storage can list
        its objects, and a FileStorage cannot where one was deleted."""
        with TidSorter() as by_oid:
            for moved in self._iterated(NO_TID, upto, lambda _oid, _tid: True):
                for record in moved.records:
                    by_oid.add(Tid(record.oid), Oid(moved.tid))
            for oid, tids in by_oid.transactions():
                sorter.add(Tid(tids[-1]), Oid(oid))

    def _iterated(
        self, after: Tid, upto: Tid, is_wanted: Callable[[Oid, Tid], bool]
    ) -> Iterator[MovedTransaction]:
        if upto <= after:
            return
        last = self._store.last_tid()
        tid = NO_TID
        begin = tid_from(number(after) + 1)
        with self._store.instance() as storage, closing(iterated(storage, self.name, begin, upto)) as found:
            for transaction, written in found:
                if transaction.tid <= tid:
                    reason = f"transaction {transaction.tid.hex()} stands behind it, and is not later"
                    raise CorruptionError(self.name, reason, tid=tid)
                tid = transaction.tid
                records = (
                    MovedRecord(each.oid, each.data, None, each.copied_from)
                    for each in written
                    if is_wanted(each.oid, tid)
                )
                yield MovedTransaction(tid, transaction.details, records)
                if tid == upto:
                    return  # nor is looked at what stands behind it
        if tid < last <= upto:
            self._store.require_whole()

    def current_tid(self, oid: Oid) -> Tid:
        return self._store.newest_tid(oid)

    def has(self, tid: Tid) -> bool:
        with self._store.instance() as storage:
            found = any(True for _ in iterated(storage, self.name, tid, tid))
        if not found:
            self._store.require_whole()  # what is damaged, or cut off, may be where it was
        return found

    def blob_digest(self, oid: Oid, tid: Tid) -> bytes | None:
        return blob_digest(self._store, oid, tid)

    def unread(self) -> Unread | None:
        return self._store.unread()


class _Wanted:
    """The oids of a sorted selection, asked for transaction by transaction, in order."""

    def __init__(self, sorter: TidSorter) -> None:
        self._sorted = sorter.transactions()
        self._tid = NO_TID
        self._oids: frozenset[Oid] = frozenset()

    def is_here(self, tid: Tid) -> bool:
        """Whether anything of a transaction is wanted. Transactions are asked for in order."""
        while self._tid < tid:
            found = next(self._sorted, None)
            if found is None:
                return False
            self._tid, self._oids = found[0], frozenset(found[1])
        return self._tid == tid

    def has(self, oid: Oid, tid: Tid) -> bool:
        return self.is_here(tid) and oid in self._oids


def source_of(store: DirectoryStore | AdoptedStore) -> Source:
    """A store as one to be read from."""
    return DirectorySource(store) if isinstance(store, DirectoryStore) else AdoptedSource(store)
