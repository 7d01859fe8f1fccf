"""Undo, and the lists that tell what can be undone: the history of a store as ZODB's users know it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from objstore.contracts import History, PendingTransaction, Store, View
from objstore.errors import UsageError
from objstore.ids import NO_TID, Oid, Tid, parse_tid, tid_seconds
from objstore.objects.details import decode_extension, details_of
from objstore.objects.routes import Routes
from objstore.objects.shared import Shared
from objstore.revisions import Details

Entry = dict[str, Any]


class Undo:
    """The data manager that undoes transactions when the one that it has joined commits."""

    def __init__(self, shared: Shared, tids: Iterable[Tid]) -> None:
        self._shared = shared
        self._tids = sorted(set(tids), reverse=True)  # the newest first: an older one may lie below it
        self._view: View | None = None
        self._pending: PendingTransaction | None = None
        self._committing = False

    def sortKey(self) -> str:
        return f"{self._shared.store.name}:{id(self)}"

    def tpc_begin(self, transaction: Any) -> None:
        self._committing = True
        self._shared.commits.begin(transaction, self)

    def commit(self, transaction: Any) -> None:
        """Write what undoes them. Raises UndoError, HistoryMissingError."""
        store = self._shared.store
        self._view = store.view()
        self._pending = store.begin(details_of(transaction), self._view, self._shared.resolver)
        routes = Routes(store, self._shared.finder)
        for tid in self._tids:
            oids = self._pending.undo(tid)
            for leaf, serial in routes.require_safe_undo(oids, tid, self._tids).items():
                self._pending.check_current(leaf, serial)

    def tpc_vote(self, _transaction: object) -> None:
        if self._pending is not None:
            self._pending.vote()

    def tpc_finish(self, _transaction: object) -> None:
        if self._pending is not None:
            self._pending.finish()
        self._end()

    def tpc_abort(self, _transaction: object) -> None:
        self._end()

    def abort(self, _transaction: object) -> None:
        self._end()

    def savepoint(self) -> Undo:
        """An undo happens when the transaction commits: there is nothing to write before."""
        return self

    def rollback(self) -> None:
        """Stay joined: the undo was asked for before the savepoint."""

    def _end(self) -> None:
        pending, self._pending = self._pending, None
        view, self._view = self._view, None
        try:
            if pending is not None:
                pending.abort()
            if view is not None:
                view.close()
        finally:
            if self._committing:
                self._shared.commits.end(self)
                self._committing = False


def tid_of(identity: str | bytes) -> Tid:
    """The tid that `undoLog` gives as `id`: 16 hexadecimal digits, or 8 bytes. Raises UsageError."""
    if isinstance(identity, bytes) and len(identity) == 8:
        return Tid(identity)
    try:
        if isinstance(identity, str):
            return parse_tid(identity)
    except ValueError as error:
        raise UsageError(str(error)) from error
    raise UsageError(f"a transaction is named by 16 hexadecimal digits or 8 bytes, not {identity!r}")


def undo_log(store: Store, first: int, last: int, wanted: Callable[[Entry], bool] | None = None) -> list[Entry]:
    """The undoable transactions from number `first` to before `last` of those wanted, newest first.

    A negative `last` is how many there are to be at most. Numbers count what `wanted` accepts.
    """
    if first < 0:
        raise UsageError(f"transactions are counted from 0, not from {first}")
    if store.history_mode is History.MINIMAL:
        return []
    found = (entry for entry in _undoable(store) if wanted is None or wanted(entry))
    return list(islice(found, first, max(first, first - last if last < 0 else last)))


def _undoable(store: Store) -> Iterator[Entry]:
    packed = store.packed_upto()
    for transaction in store.transactions():
        if transaction.tid <= packed:
            return
        yield {"id": transaction.tid.hex(), **_facts(transaction.tid, transaction.details)}


def has_all(specification: Mapping[str, Any]) -> Callable[[Entry], bool]:
    """Whether an entry has all the values of a specification."""

    def wanted(entry: Entry) -> bool:
        return all(name in entry and entry[name] == value for name, value in specification.items())

    return wanted


def history_of(store: Store, oid: Oid, size: int) -> list[Entry]:
    """The newest `size` revisions of an object, newest first. Raises POSKeyError."""
    entries = []
    for summary in islice(store.summaries(oid), size):
        transaction = store.transaction(summary.tid)
        details = transaction.details if transaction is not None else Details()
        entry = _facts(summary.tid, details)
        entry.update(serial=summary.tid, size=summary.size, deleted=summary.deleted)
        entry["previous"] = None if summary.previous == NO_TID else summary.previous
        entries.append(entry)
    return entries


def _facts(tid: Tid, details: Details) -> Entry:
    return {
        **decode_extension(details.extension),
        "tid": tid,
        "time": tid_seconds(tid),
        "user_name": details.user,
        "description": details.description,
    }
