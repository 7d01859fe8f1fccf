"""Undo: what must be written so that a transaction's changes are taken back.

For each object that the transaction wrote: if its current record is the one written then, or a copy of it,
the record before it comes back, as a new revision. If the object was changed since, its class may resolve
the difference (as for a conflict between the later changes and the record from before); else the undo is
refused. An object that the transaction created becomes deleted. These are ZODB's rules
(`IStorageUndoable.undo`).
"""

from __future__ import annotations

from collections.abc import Callable

from objstore.contracts import Conflict, Resolver
from objstore.engine.lookup import Lookup
from objstore.errors import ConflictError, HistoryMissingError, UndoError
from objstore.ids import NO_TID, Oid, Tid, tid_moment
from objstore.revisions import Revision


class Undoing:
    """Works out undos, on top of what the pending transaction has `written` of an object so far."""

    def __init__(
        self, lookup: Lookup, resolver: Resolver, written: Callable[[Oid], Revision | None], packed_upto: Tid
    ) -> None:
        self._lookup = lookup
        self._resolver = resolver
        self._written = written
        self._packed_upto = packed_upto

    def undo(self, tid: Tid, upto: Tid) -> dict[Oid, Revision]:
        """The writes that undo the transaction `tid`, given all that is durable up to `upto`."""
        if tid <= self._packed_upto:
            raise HistoryMissingError(
                f"transaction {tid.hex()} cannot be undone: history was packed to "
                f"{tid_moment(self._packed_upto).isoformat()}"
            )
        transaction = self._lookup.transaction(tid) if tid <= upto else None
        if transaction is None:
            raise UndoError(tid, "there is no such transaction")
        return {oid: self._undo_object(oid, tid, upto) for oid in transaction.oids}

    def _undo_object(self, oid: Oid, tid: Tid, upto: Tid) -> Revision:
        stored = self._lookup.load(oid, upto)
        undone = self._lookup.load(oid, tid)
        if stored is None or undone is None or undone.tid != tid:
            raise UndoError(tid, "its record was packed away", oid)
        before = self._before(undone)
        # What is current: what this transaction has written already, or what is stored.
        written = self._written(oid)
        current = written or stored
        serial = written.previous if written is not None else stored.tid
        same = current.data == undone.data and current.blob == undone.blob
        if (written is None and stored.tid == tid) or same:
            return self._copy(before, oid, serial)
        if before is None or before.data is None or undone.data is None or current.data is None:
            raise UndoError(tid, "it was changed by a later transaction", oid)
        conflict = Conflict(oid, tid, stored.tid, undone.data, current.data, before.data)
        try:
            data, references = self._resolver(conflict)
        except ConflictError as error:
            raise UndoError(tid, f"it was changed by a later transaction ({error})", oid) from error
        return Revision(oid, NO_TID, serial, data, references)

    def _before(self, undone: Revision) -> Revision | None:
        """The record that the undone one replaced; None where it created the object."""
        if undone.previous == NO_TID:
            return None
        before = self._lookup.load(undone.oid, undone.previous)
        if before is None or before.tid != undone.previous:
            raise UndoError(undone.tid, "the record from before it was packed away", undone.oid)
        return before

    def _copy(self, before: Revision | None, oid: Oid, serial: Tid) -> Revision:
        if before is None or before.data is None:
            return Revision(oid, NO_TID, serial, None, None)
        return before._replace(tid=NO_TID, previous=serial, copied_from=before.tid)
