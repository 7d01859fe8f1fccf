"""Reading an adopted storage as a whole: what is newest, the revisions of an object, the log of transactions.

Storages with snapshots of their own (RelStorage) show one at a time to one thread: so what is asked of the whole
goes to an instance that nothing else uses, moved on each time, and let go of its snapshot afterwards.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from itertools import islice
from threading import Lock
from typing import Any

from ZODB.FileStorage.FileStorage import TransactionRecordIterator
from ZODB.POSException import POSKeyError as ZODBKeyError
from ZODB.utils import maxtid

from objstore.compat.adopted import datafile
from objstore.compat.adopted.failures import ours
from objstore.compat.adopted.records import Written, details_of, readable
from objstore.errors import CorruptionError, MissingAbilityError, POSKeyError
from objstore.formats import pickles
from objstore.ids import MAX_TID, NO_TID, Oid, Tid, number, tid_from
from objstore.revisions import Revision, RevisionSummary, Transaction

FIRST_PAGE, LAST_PAGE = 32, 65_536
"""How many entries are asked of a storage at once: twice as many each time, because it finds them by counting."""

GATHERED = 16 * 2**20
"""Bytes of one transaction that are held in memory while it is read."""


class Reading:
    """What `AdoptedStore` asks of the whole of a storage. May be used by any thread."""

    def __init__(self, name: str, storage: Any, instance: Any | None) -> None:
        """`instance` is what a storage with snapshots of its own has made for this; None for others."""
        self.name = name
        self.storage = storage
        self._instance = instance
        self._lock = Lock()  # guards the instance; a leaf

    @contextmanager
    def newest(self) -> Iterator[Any]:
        """The storage as it is now."""
        if self._instance is None:
            with ours(self.name):
                yield self.storage
            return
        with self._lock, ours(self.name):
            self._instance.sync(True)
            self._instance.poll_invalidations()
            try:
                yield self._instance
            finally:
                self._instance.afterCompletion()

    def close(self) -> None:
        """Let go of the instance."""
        if self._instance is not None:
            with self._lock, ours(self.name):
                self._instance.release()

    def last_tid(self) -> Tid:
        with self.newest() as storage:
            return Tid(storage.lastTransaction() or NO_TID)

    def new_oid(self) -> Oid:
        if self._instance is None:
            with ours(self.name):
                return Oid(self.storage.new_oid())
        with self._lock, ours(self.name):
            return Oid(self._instance.new_oid())

    def settle(self) -> None:
        """Wait for what a server has told us already: it tells of commits without being asked."""
        ping = getattr(self.storage, "ping", None)
        if ping is not None:
            with ours(self.name):
                ping()

    def newest_tid(self, oid: Oid) -> Tid:
        """The tid of the newest record of an object; NO_TID where there is none."""
        with self.newest() as storage:
            try:
                found = storage.loadBefore(oid, maxtid)
            except ZODBKeyError:
                found = None
        return Tid(found[1]) if found else NO_TID

    def record(self, oid: Oid, serial: Tid) -> bytes:
        """The record of an object at one serial. Raises POSKeyError, also where the object was deleted then."""
        with self.newest() as storage:
            try:
                return bytes(storage.loadSerial(oid, serial))
            except ZODBKeyError as error:
                raise POSKeyError(oid, tid=serial) from error

    def revision(self, oid: Oid, tid: Tid) -> Revision:
        """One revision. Raises POSKeyError."""
        try:
            data: bytes | None = self.record(oid, tid)
        except POSKeyError:
            data = None
        if data is not None:
            with self.newest() as storage:
                try:
                    before = storage.loadBefore(oid, tid)
                except ZODBKeyError:
                    before = ()
            if before:
                return Revision(oid, tid, Tid(before[1]), data, pickles.references(data))
        for summary in self.summaries(oid):  # a deletion, or what follows one
            if summary.tid == tid:
                references = pickles.references(data) if data is not None else None
                return Revision(oid, tid, summary.previous, data, references)
        raise POSKeyError(oid, tid=tid)

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        """The revisions of an object, newest first. Raises POSKeyError."""
        page, seen = FIRST_PAGE, 0
        while True:
            with self.newest() as storage:
                try:
                    # One more than is told, whose tid is the last one's `previous`.
                    entries = storage.history(oid, size=page + 1)
                except ZODBKeyError as error:
                    raise POSKeyError(oid) from error
            tids = [Tid(entry["tid"]) for entry in entries]
            if not tids:  # RelStorage passes over what was packed, be it current
                yield self._only(oid)
                return
            for entry, tid, previous in zip(
                entries[seen:page], tids[seen:], [*tids[seen + 1 :], NO_TID], strict=False
            ):
                yield self._summary(oid, tid, previous, entry["size"])
            if len(entries) <= page:
                return
            page, seen = page * 2, page

    def _only(self, oid: Oid) -> RevisionSummary:
        """The current revision of an object that has no other."""
        with self.newest() as storage:
            try:
                found = storage.loadBefore(oid, maxtid)
            except ZODBKeyError:
                found = None
        if not found:
            raise POSKeyError(oid)
        return RevisionSummary(oid, Tid(found[1]), NO_TID, len(found[0]), False, None)

    def _summary(self, oid: Oid, tid: Tid, previous: Tid, size: int | None) -> RevisionSummary:
        deleted = False
        if not size:  # it was deleted, or an undo has copied it
            try:
                size = len(self.record(oid, tid))
            except POSKeyError:
                size, deleted = 0, True
        return RevisionSummary(oid, tid, previous, size, deleted, None)

    def transaction(self, tid: Tid) -> Transaction | None:
        """A transaction; None where it is not there. Which one was before it is not known."""
        return next(self._between(tid, tid), None)

    def is_packed(self, at: Tid) -> bool:
        """Whether the first transaction after `at` bears the mark of a pack: then the past at `at` has holes."""
        if at >= self.last_tid():
            return False
        begin = tid_from(number(at) + 1)
        with _reading(self.name), _closing(datafile.iterator(self.storage, begin, None)) as found:
            return any(each.status == "p" for each in islice(found, 1))

    def transactions(self, upto: Tid | None) -> Iterator[Transaction]:
        """The transactions that can be undone, newest first."""
        page, seen = FIRST_PAGE, 0
        bound = number(upto) + 1 if upto is not None else number(MAX_TID)
        while True:
            with ours(self.name):
                entries = self.storage.undoLog(seen, seen + page)
            # What was committed since the last page has moved all others on.
            tids = {tid for entry in entries if (tid := _tid_of(entry)) and number(tid) < bound}
            if tids:
                found = [each for each in self._between(min(tids), max(tids)) if each.tid in tids]
                yield from reversed(found)
                bound = number(min(tids))
            if len(entries) < page:
                return
            page, seen = min(page * 2, LAST_PAGE), seen + page

    def _between(self, first: Tid, last: Tid) -> Iterator[Transaction]:
        """The transactions from one to another, both included, in the order of their commits."""
        previous = NO_TID
        for transaction, written in iterated(self.storage, self.name, first, last):
            oids = tuple(each.oid for each in written)
            yield Transaction(transaction.tid, previous, readable(transaction.details), oids)
            previous = transaction.tid


def iterated(
    storage: Any, name: str, first: Tid | None, last: Tid | None
) -> Generator[tuple[Transaction, Iterator[Written]]]:
    """The transactions of a storage, with what each has written, in the order of their commits.

    What it has written is read as it is asked for, before the next transaction is.

    Details are as the storage has them; the transactions' own oids are left out. Raises MissingAbilityError,
    CorruptionError.
    """
    if not hasattr(storage, "iterator"):
        raise MissingAbilityError(name, "list its transactions")
    previous = NO_TID
    with _reading(name):
        found = datafile.iterator(storage, first, last)
    with _closing(found):
        while True:
            with _reading(name):
                record = next(found, None)
                if record is None:
                    return
                transaction = Transaction(Tid(record.tid), previous, details_of(record), ())
            yield transaction, _written(record, name)
            previous = transaction.tid


def _written(record: Any, name: str) -> Iterator[Written]:
    """What a transaction has written of each object.

    A FileStorage's may have written one several times, because it undid several: the last counts. So its records
    are gathered before the first is given; those of a transaction that is too large for that are read twice.
    """
    gathered: dict[Oid, Written] = {}
    size = 0
    for each in _all_written(record, name):
        gathered.pop(each.oid, None)
        gathered[each.oid] = each
        size += len(each.data or b"")
        if size > GATHERED:
            break
    else:
        yield from gathered.values()
        return
    gathered.clear()
    last = {each.oid: at for at, each in enumerate(_all_written(record, name))}
    for at, each in enumerate(_all_written(record, name)):
        if last[each.oid] == at:
            yield each


def _all_written(record: Any, name: str) -> Iterator[Written]:
    tid = Tid(record.tid)
    with _reading(name, tid):
        found = iter(record)
    while True:
        with _reading(name, tid):
            each = next(found, None)
            if each is None:
                break
            written = Written(each)
        yield written
    if isinstance(found, TransactionRecordIterator) and found._pos < found._tend:  # it has only logged that
        raise CorruptionError(name, "the header of a record is damaged", offset=found._pos, tid=tid)


@contextmanager
def _reading(name: str, tid: Tid | None = None) -> Iterator[None]:
    """While inside, what a storage's iterator raises becomes ours."""
    with ours(name), datafile.sound(name, tid):
        yield


def _closing(found: Any) -> AbstractContextManager[Any]:
    """Closes an iterator of a storage at the end, if it is of the kind that wants it."""
    return closing(found) if hasattr(found, "close") else nullcontext(found)


def _tid_of(entry: Any) -> Tid | None:
    """The tid of an entry of a storage's log; None where its extension has taken the place of the identity."""
    try:
        tid = base64.decodebytes(entry["id"])
    except (TypeError, ValueError):
        return None
    return Tid(tid) if len(tid) == 8 else None
