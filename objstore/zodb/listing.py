"""What a storage tells of its past, in ZODB's terms: iteration, histories of objects, what can be undone."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from ZODB.BaseStorage import DataRecord, TransactionRecord

from objstore.contracts import History
from objstore.engine.store import DirectoryStore
from objstore.errors import POSKeyError
from objstore.ids import Oid, Tid, number, tid_from, tid_seconds
from objstore.objects.details import decode_extension
from objstore.revisions import Details, Revision, Transaction
from objstore.upkeep.selection import CurrentState
from objstore.upkeep.sorting import TidSorter
from objstore.zodb.translating import each_in_terms_of_zodb

Description = dict[str, Any]


def identity_of(tid: Tid) -> bytes:
    """What names a transaction in the undo log: as in FileStorage and RelStorage, its tid in base64."""
    return base64.encodebytes(tid).rstrip()


def tid_named(identity: bytes) -> Tid | None:
    """The tid that such a name, or the tid itself, stands for; None where it is neither."""
    try:
        tid = identity if len(identity) == 8 else base64.decodebytes(identity)
    except ValueError:
        return None
    return Tid(tid) if len(tid) == 8 else None


def extension_of(details: Details) -> bytes | dict[str, Any]:
    """The extension of a transaction: a pickle, or a mapping where it is none."""
    return decode_extension(details.extension) if details.extension.startswith(b"{") else details.extension


def _bytes_of(text: str) -> bytes:
    """A text as it was stored: with bytes that are no UTF-8, where it came from elsewhere with them."""
    return text.encode("utf-8", "surrogateescape")


class StoredTransaction(TransactionRecord):
    """A transaction of an iterator. It can be iterated as often as one likes."""

    def __init__(self, transaction: Transaction, revision: Callable[[Oid, Tid], Revision | None]) -> None:
        details = transaction.details
        user, description = _bytes_of(details.user), _bytes_of(details.description)
        TransactionRecord.__init__(self, transaction.tid, " ", user, description, extension_of(details))
        self._oids = transaction.oids
        self._revision = revision

    def __iter__(self) -> Iterator[Any]:
        return each_in_terms_of_zodb(self._records())

    def _records(self) -> Iterator[Any]:
        for oid in self._oids:
            revision = self._revision(oid, Tid(self.tid))
            if revision is not None:
                yield DataRecord(oid, self.tid, revision.data, revision.copied_from)


def iterate(store: DirectoryStore, start: bytes | None, stop: bytes | None) -> Iterator[StoredTransaction]:
    """The transactions with `start` <= tid <= `stop`, the oldest first.

    A Minimal store has those that wrote what is current. Takes eight bytes for each transaction.
    """
    upto = min(Tid(stop), store.last_tid()) if stop is not None else store.last_tid()
    if store.history_mode is History.MINIMAL:
        yield from _current(store, start or b"", upto)
        return
    tids = array("Q")
    for transaction in store.transactions(upto):
        if start is not None and transaction.tid < start:
            break
        tids.append(number(transaction.tid))
    for at in reversed(tids):
        found = store.transaction(tid_from(at))
        if found is not None:  # else it was packed away meanwhile
            yield StoredTransaction(found, _finder(store))


def _current(store: DirectoryStore, start: bytes, upto: Tid) -> Iterator[StoredTransaction]:
    view = store.view()  # what it shows stays
    try:
        with TidSorter() as sorter:
            state = CurrentState(store, upto, sorter)
            state.survey(lambda *_: None)
            for transaction in state.transactions():
                if transaction.tid >= start:
                    yield StoredTransaction(transaction, _finder(store))
    finally:
        view.close()


def _finder(store: DirectoryStore) -> Callable[[Oid, Tid], Revision | None]:
    def find(oid: Oid, tid: Tid) -> Revision | None:
        try:
            return store.revision(oid, tid)
        except POSKeyError:  # packed away
            return None

    return find


def load_before(store: DirectoryStore, oid: Oid, before: bytes) -> tuple[bytes, Tid, Tid | None] | None:
    """The record of an object before a tid, its tid, and that of the next; None where there is none before.

    Raises POSKeyError where there is no such object, or none any more at that time.
    """
    view = store.view()
    try:
        data, serial = view.load(oid)
        if serial < before:
            return data, serial, None
    except POSKeyError:  # it may have been there earlier
        pass
    finally:
        view.close()
    return _older(store, oid, before)


def load_current(store: DirectoryStore, oid: Oid, upto: Tid) -> tuple[bytes, Tid]:
    """The record of an object that was current at a tid. Raises POSKeyError."""
    found = load_before(store, oid, tid_from(number(upto) + 1))
    if found is None:
        raise POSKeyError(oid, tid=upto)
    return found[:2]


def _older(store: DirectoryStore, oid: Oid, before: bytes) -> tuple[bytes, Tid, Tid | None] | None:
    following: Tid | None = None
    for summary in store.summaries(oid):
        if summary.tid < before:
            data = store.revision(oid, summary.tid).data
            if data is None:
                raise POSKeyError(oid)
            return data, summary.tid, following
        following = summary.tid
    return None


def history(store: DirectoryStore, oid: Oid, size: int) -> list[Description]:
    """The newest revisions of an object, `size` at most, the newest first. Raises POSKeyError."""
    return [
        {**_described(store, summary.tid), "tid": summary.tid, "serial": summary.tid, "size": summary.size}
        for summary in islice(store.summaries(oid), size)
    ]


def _described(store: DirectoryStore, tid: Tid) -> Description:
    found = store.transaction(tid) or Transaction(tid, tid, Details(), ())
    return _description(found)


def _description(transaction: Transaction) -> Description:
    record = StoredTransaction(transaction, lambda *_: None)
    return {
        **record.extension,
        "time": tid_seconds(transaction.tid),
        "user_name": record.user,
        "description": record.description,
    }


def undo_log(
    store: DirectoryStore, first: int, last: int, is_wanted: Callable[[Description], object] | None
) -> list[Description]:
    """What can be undone, the newest first: a part of what is wanted, as `IStorageUndoable.undoLog` has it."""
    if store.history_mode is History.MINIMAL:
        return []
    if last < 0:
        last = first - last
    return list(islice(filter(is_wanted, _undoable(store)), first, last))


def _undoable(store: DirectoryStore) -> Iterator[Description]:
    packed = store.packed_upto()
    for transaction in store.transactions():
        if transaction.tid <= packed:
            return
        yield {**_description(transaction), "id": identity_of(transaction.tid)}


def superset(specification: Mapping[str, Any] | None) -> Callable[[Description], bool] | None:
    """Tells the descriptions that have all that is specified."""
    if not specification:
        return None
    wanted = specification.items()
    return lambda description: all(description.get(name) == value for name, value in wanted)


def changes(store: DirectoryStore, after: Tid) -> list[Transaction] | None:
    """The transactions after a tid, the oldest first; None where they are no longer all known."""
    found: list[Transaction] = []
    expected = newest = store.last_tid()
    if newest <= after:
        return found
    for transaction in store.transactions(newest):
        if transaction.tid != expected:
            return None
        found.append(transaction)
        expected = transaction.previous
        if expected <= after:
            return found[::-1]
    return None


def newest_changes(store: DirectoryStore, size: int) -> list[tuple[bytes, list[bytes]]]:
    """The newest transactions that follow each other without a gap, `size` at most, the oldest first."""
    found: list[tuple[bytes, list[bytes]]] = []
    expected = store.last_tid()
    for transaction in islice(store.transactions(expected), size):
        if transaction.tid != expected:
            break
        found.append((transaction.tid, list(transaction.oids)))
        expected = transaction.previous
    return found[::-1] or [(expected, [])]
