"""Transactions in the two phases of ZODB, each a `PendingTransaction` of the store.

Each is known by the object that ZODB hands in with every call. A storage that is shared may have several at once;
they do not wait for each other before they vote.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ZODB.POSException import StorageTransactionError

from objstore.contracts import History, View
from objstore.engine.failures import storage_error
from objstore.engine.pending import Pending
from objstore.engine.store import DirectoryStore
from objstore.errors import HistoryMissingError, UndoError
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import Details
from objstore.zodb.listing import tid_named
from objstore.zodb.resolving import Records, Resolver


@dataclass(slots=True, eq=False)
class Begun:
    """A transaction between `tpc_begin` and its end."""

    transaction: Any
    pending: Pending
    view: View | None
    """What to close at the end."""
    is_restored: bool
    has_written: bool = False


class Transactions:
    """The transactions that a storage has begun. May be used by any thread, each transaction by one at a time."""

    def __init__(
        self,
        storage: Any,
        store: DirectoryStore,
        records: Records,
        resolver: Resolver,
        view: Callable[[], View] | None = None,
    ) -> None:
        """`view` gives the one to write on the ground of, where a storage has one of its own."""
        self._storage = storage  # for messages
        self._store = store
        self._records = records
        self._resolver = resolver
        self._own_view = view
        self._begun: dict[int, Begun] = {}

    def begin(self, transaction: Any, tid: bytes | None = None) -> None:
        """Begin one; with a `tid`, one that is restored. Raises StorageTransactionError where it was begun."""
        if id(transaction) in self._begun:
            raise StorageTransactionError("Duplicate tpc_begin calls for same transaction")
        details = details_of(transaction)
        view = None
        if tid is not None:
            pending = self._store.restore(Tid(tid), details)
        elif self._own_view is not None:
            pending = self._store.begin(details, self._own_view(), self._resolver)
        else:
            view = self._store.view()
            try:
                pending = self._store.begin(details, view, self._resolver, any_serials=True)
            except BaseException:
                view.close()
                raise
        self._begun[id(transaction)] = Begun(transaction, pending, view, tid is not None)

    def get(self, transaction: Any) -> Begun:
        """One that was begun. Raises StorageTransactionError."""
        begun = self._begun.get(id(transaction))
        if begun is None:
            raise StorageTransactionError(self._storage, transaction)
        return begun

    @property
    def current(self) -> Any:
        """The transaction that was begun last, None where there is none."""
        begun = list(self._begun.values())
        return begun[-1].transaction if begun else None

    def store(self, transaction: Any, oid: bytes, serial: bytes | None, data: bytes | None) -> None:
        """Write a record; None deletes the object."""
        begun = self.get(transaction)
        references = self._records.references(data) if data is not None else None
        begun.pending.store(Oid(oid), Tid(serial or NO_TID), data, references, opaque=references is None)
        begun.has_written = True

    def store_blob(self, transaction: Any, oid: bytes, serial: bytes | None, data: bytes, filename: str) -> None:
        """Write the record of a blob, and take over the file that has its data."""
        self._take(self.get(transaction), oid, serial, data, filename, None)

    def restore_blob(
        self, transaction: Any, oid: bytes, data: bytes, filename: str, copied_from: bytes | None
    ) -> None:
        """The same for a transaction from elsewhere."""
        self._take(self._restored(transaction), oid, None, data, filename, copied_from)

    def _take(
        self,
        begun: Begun,
        oid: bytes,
        serial: bytes | None,
        data: bytes,
        filename: str,
        copied_from: bytes | None,
    ) -> None:
        files, pending = self._store.blobs, begun.pending
        try:
            path = files.take(os.path.abspath(filename))
        except OSError as error:
            raise storage_error(filename, error) from error
        references = self._records.references(data) or b""
        source = Tid(copied_from) if copied_from else None
        try:
            pending.store_blob(Oid(oid), Tid(serial or NO_TID), data, references, path, source)
        except BaseException:
            files.discard(path)
            raise
        begun.has_written = True

    def _restored(self, transaction: Any) -> Begun:
        begun = self.get(transaction)
        if not begun.is_restored:
            raise StorageTransactionError("restore needs a transaction that was begun with its tid")
        return begun

    def restore(self, transaction: Any, oid: bytes, data: bytes | None, copied_from: bytes | None) -> None:
        """Write a record of a transaction from elsewhere."""
        begun = self._restored(transaction)
        references = self._records.references(data) if data is not None else None
        source = Tid(copied_from) if copied_from else None
        begun.pending.store(Oid(oid), NO_TID, data, references, source, opaque=references is None)
        begun.has_written = True

    def check_current(self, transaction: Any, oid: bytes, serial: bytes) -> None:
        """Let the vote fail where this is not current."""
        self.get(transaction).pending.check_current(Oid(oid), Tid(serial))

    def undo(self, transaction: Any, identity: bytes) -> list[bytes]:
        """Undo a transaction that the log names so: the objects that this writes."""
        if self._store.history_mode is History.MINIMAL:
            raise HistoryMissingError("a Minimal store keeps no past; create it with history='full' to undo")
        tid = tid_named(identity)
        if tid is None:
            raise UndoError(Tid(identity), "there is no such transaction")
        begun = self.get(transaction)
        oids: list[bytes] = list(begun.pending.undo(tid))
        begun.has_written |= bool(oids)
        return oids

    def vote(self, transaction: Any) -> list[bytes]:
        """Vote: the objects that were resolved."""
        return list(self.get(transaction).pending.vote())

    def finish(self, transaction: Any) -> Tid | None:
        """Commit: the tid, None where nothing was written."""
        begun = self.get(transaction)
        try:
            tid = begun.pending.finish()
            return tid if begun.has_written else None
        finally:
            self._end(begun)

    def abort(self, transaction: Any) -> None:
        """Give it up, if there is such a one."""
        begun = self._begun.get(id(transaction))
        if begun is not None:
            try:
                begun.pending.abort()
            finally:
                self._end(begun)

    def _end(self, begun: Begun) -> None:
        del self._begun[id(begun.transaction)]
        if begun.view is not None:
            begun.view.close()

    def close(self) -> None:
        """Give all of them up."""
        for begun in list(self._begun.values()):
            self.abort(begun.transaction)


def details_of(transaction: Any) -> Details:
    """What a transaction of ZODB says of itself. Its extension stays the pickle that it is.

    Text that is no UTF-8, of databases older than Python 3, is kept with its bytes written out.
    """
    extension: bytes = transaction.extension_bytes
    return Details(_text(transaction.user), _text(transaction.description), extension)


def _text(text: str | bytes) -> str:
    if isinstance(text, str):
        text = text.encode("utf-8", "backslashreplace")
    return text.decode("utf-8", "backslashreplace")
