"""Writing a transaction: store, vote, finish, in the order that the design promises.

Vote: 1. look for conflicts and resolve them, so that the common case writes once; 2. write the records and
make them durable (a full disk shows here); 3. take the writer lock; 4. look for conflicts with what was
committed meanwhile; if anything was resolved, write and sync again. Finish: 5. allocate the tid; 6. rename;
7. publish; 8. release the writer lock; 9. sync the journal, which serves all who wait for it.

A crash before 6 leaves a directory that recovery drops; between 6 and 9 the transaction may be there or
not, and was not acknowledged; after 9 it is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from objstore.contracts import Conflict, Resolver
from objstore.engine.commits import Commits
from objstore.engine.failures import storage_error
from objstore.engine.flusher import Flusher
from objstore.engine.journal import Draft
from objstore.engine.lookup import Lookup
from objstore.engine.oids import Oids
from objstore.engine.undo import Undoing
from objstore.engine.views import StoreView
from objstore.errors import (
    ClosedError,
    ConflictError,
    DanglingReferenceError,
    ReadConflictError,
    RecordTooLargeError,
    SerializationError,
    UsageError,
)
from objstore.formats import pickles, records
from objstore.ids import NO_TID, Oid, Tid, next_tid, split_oids
from objstore.revisions import Details, Revision


@dataclass(slots=True, eq=False)
class Workshop:
    """What every pending transaction of a store works with."""

    lookup: Lookup
    commits: Commits
    flusher: Flusher
    oids: Oids
    clock: Callable[[], float]
    new_token: Callable[[], bytes]
    packed_upto: Callable[[], Tid]
    is_doomed: Callable[[Oid], bool] | None = None
    """Set while objects are being, or have been, packed away: what must not be referred to."""


class Pending:
    """A `contracts.PendingTransaction`."""

    def __init__(self, workshop: Workshop, details: Details, view: StoreView, resolver: Resolver) -> None:
        self._workshop = workshop
        self._details = details
        self._view = view
        self._resolver = resolver
        self._writes: dict[Oid, Revision] = {}  # tid: NO_TID; previous: the serial it was changed from
        self._reads: dict[Oid, Tid] = {}
        self._resolved: set[Oid] = set()
        self._checked = view.snapshot  # conflicts were looked for up to here
        self._draft: Draft | None = None
        self._writing = False  # whether this holds the writer lock
        self._ended = False

    # --- collecting ---

    def store(
        self, oid: Oid, serial: Tid, data: bytes | None, references: bytes | None, copied_from: Tid | None = None
    ) -> None:
        self._require_open()
        if data is not None:
            if len(data) > records.MAX_DATA:
                raise RecordTooLargeError(oid, len(data), records.MAX_DATA)
            if references is None:
                references = pickles.references(data)
        self._writes[oid] = Revision(oid, NO_TID, serial, data, references, copied_from)

    def check_current(self, oid: Oid, serial: Tid) -> None:
        self._require_open()
        self._reads[oid] = serial

    def undo(self, tid: Tid) -> frozenset[Oid]:
        self._require_open()
        workshop = self._workshop
        undoing = Undoing(workshop.lookup, self._resolver, self._writes, workshop.packed_upto())
        writes = undoing.undo(tid, upto=workshop.commits.durable)
        self._writes.update(writes)
        return frozenset(writes)

    def _require_open(self) -> None:
        if self._ended or self._draft is not None:
            raise ClosedError("the transaction")

    # --- vote ---

    def vote(self) -> frozenset[Oid]:
        self._require_open()
        workshop = self._workshop
        workshop.commits.require_sound()
        workshop.flusher.wait_for_room()
        try:
            self._check(workshop.commits.last)
            if self._writes:
                self._cover_new_oids()
                self._write()
            workshop.commits.writer.acquire()
            self._writing = True
            workshop.commits.require_sound()
            if self._check(workshop.commits.last):
                self._discard()
                self._write()
            self._refuse_dangling()
        except OSError as error:
            self.abort()
            raise storage_error(workshop.lookup.journal.path, error) from error
        except BaseException:
            self.abort()
            raise
        return frozenset(self._resolved)

    def _check(self, upto: Tid) -> bool:
        """Look for conflicts with transactions after those looked at; whether anything was resolved."""
        changed = self._workshop.commits.changed(self._checked, upto)
        suspects = self._writes if changed is None else changed & self._writes.keys()
        readers = self._reads if changed is None else changed & self._reads.keys()
        for oid in readers:
            committed = self._workshop.lookup.newest(oid) or NO_TID
            if committed != self._reads[oid] and oid not in self._writes:
                raise ReadConflictError(oid, self._reads[oid], committed, self._class_name(oid, committed))
        resolved = False
        for oid in sorted(suspects):
            committed = self._workshop.lookup.newest(oid) or NO_TID
            if committed != self._writes[oid].previous:
                self._writes[oid] = self._resolve(self._writes[oid], committed)
                self._resolved.add(oid)
                resolved = True
        self._checked = upto
        return resolved

    def _resolve(self, write: Revision, committed: Tid) -> Revision:
        oid, serial = write.oid, write.previous
        current = self._workshop.lookup.load(oid, committed)
        base = self._workshop.lookup.load(oid, serial) if serial != NO_TID else None
        if (
            write.data is None
            or current is None
            or current.data is None
            or base is None
            or base.data is None
            or base.tid != serial
        ):
            raise ConflictError(oid, serial, committed, self._class_name(oid, committed))
        conflict = Conflict(oid, serial, committed, base.data, current.data, write.data)
        data, references = self._resolver(conflict)
        return replace(write, previous=committed, data=data, references=references, copied_from=None)

    def _class_name(self, oid: Oid, tid: Tid) -> str | None:
        write = self._writes.get(oid)
        data = write.data if write is not None else None
        if data is None:
            revision = self._workshop.lookup.load(oid, tid)
            data = revision.data if revision is not None else None
        try:
            return pickles.class_name(data) if data is not None else None
        except SerializationError:  # only a name for a message is wanted
            return None

    def _refuse_dangling(self) -> None:
        is_doomed = self._workshop.is_doomed
        if is_doomed is None:
            return
        for write in self._writes.values():
            mentioned = split_oids(write.references or b"")
            for oid in (write.oid, *mentioned):
                if is_doomed(oid):
                    raise DanglingReferenceError(
                        oid, write.previous, self._workshop.commits.last, self._class_name(write.oid, NO_TID)
                    )

    def _cover_new_oids(self) -> None:
        new = [oid for oid, write in self._writes.items() if write.previous == NO_TID]
        if new:
            self._workshop.oids.cover(max(new))

    def _write(self) -> None:
        workshop = self._workshop
        self._draft = workshop.lookup.journal.write(
            workshop.new_token(), workshop.commits.durable, self._details, list(self._writes.values())
        )

    # --- finish ---

    def finish(self) -> Tid:
        commits, journal = self._workshop.commits, self._workshop.lookup.journal
        if self._ended or not self._writing:
            raise UsageError("a transaction is finished after it has voted, once")
        if self._draft is None:
            self._end()
            return commits.durable
        tid = next_tid(commits.last, self._workshop.clock())
        try:
            waiting = journal.commit(self._draft, tid, commits.last)
            self._workshop.lookup.index.add(waiting)
            commits.publish(tid, frozenset(waiting.transaction.oids))
        except OSError as error:  # the rename failed, so it is a draft still
            self.abort()
            raise storage_error(journal.path, error) from error
        except BaseException:
            commits.fail("a commit was interrupted while it was renamed")
            raise
        finally:
            self._draft = None
            self._end()
        commits.make_durable(tid)
        self._view.committed(tid)
        self._workshop.flusher.notify()
        return tid

    def abort(self) -> None:
        if self._ended:
            return
        try:
            with contextlib.suppress(OSError):  # a draft that cannot be removed is dropped by recovery
                self._discard()
        finally:
            self._end()

    def _discard(self) -> None:
        draft, self._draft = self._draft, None
        if draft is not None:
            self._workshop.lookup.journal.discard(draft)

    def _end(self) -> None:
        self._ended = True
        if self._writing:
            self._writing = False
            self._workshop.commits.writer.release()
