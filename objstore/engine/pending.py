"""Writing a transaction: store, vote, finish, in the order that the design promises.

Store: 1. records go into a draft, on room that is allocated for them (a full disk shows here), and blobs into
its directory, by renaming. Vote: 2. look for conflicts and resolve them: what was resolved goes into the
draft too, in place of what was stored; blobs are synced, with their names; 3. take the writer lock; 4. look
for conflicts with what was committed meanwhile, likewise. Finish: 5. allocate the tid; 6. rename the draft;
7. write its header, which commits; 8. publish; 9. release the writer lock; 10. sync the draft; 11. wait until
all transactions before it are durable.

A crash before 7 leaves a directory that recovery drops; between 7 and 10 the transaction may be there whole or
not at all, and was not acknowledged; after 11 it is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from objstore.contracts import Conflict, Resolver
from objstore.engine.blobs import Blobs
from objstore.engine.commits import Commits
from objstore.engine.dooms import Dooms
from objstore.engine.drafts import Draft
from objstore.engine.failures import storage_error
from objstore.engine.flusher import Flusher
from objstore.engine.journal import Waiting
from objstore.engine.lookup import Lookup
from objstore.engine.oids import Oids
from objstore.engine.undo import Undoing
from objstore.engine.views import StoreView
from objstore.errors import (
    BlobMissingError,
    ClosedError,
    ConflictError,
    DanglingReferenceError,
    ReadConflictError,
    RecordTooLargeError,
    SerializationError,
    UndoError,
    UsageError,
)
from objstore.formats import pickles, records
from objstore.ids import NO_TID, Oid, Tid, next_tid, split_oids
from objstore.revisions import BlobFacts, Details, Revision


class Workshop(NamedTuple):
    """What every pending transaction of a store works with."""

    lookup: Lookup
    commits: Commits
    flusher: Flusher
    oids: Oids
    clock: Callable[[], float]
    new_token: Callable[[], bytes]
    packed_upto: Callable[[], Tid]
    publish: Callable[[Waiting], None]
    dooms: Dooms
    blobs: Blobs


def refused(conflict: Conflict) -> tuple[bytes, bytes]:
    """The resolver that resolves nothing. Raises ConflictError."""
    raise ConflictError(conflict.oid, conflict.serial, conflict.committed_serial)


class Pending:
    """A `contracts.PendingTransaction`.

    One that is restored has its tid from the beginning. It has no conflicts: what it writes follows whatever is
    the newest.
    """

    def __init__(
        self,
        workshop: Workshop,
        details: Details,
        view: StoreView | None,
        resolver: Resolver = refused,
        *,
        any_serials: bool = False,
        restored: Tid | None = None,
    ) -> None:
        """`any_serials` is as for `Store.begin`; `restored` is the tid of a transaction that is restored.

        Raises UsageError where that comes too late.
        """
        self._workshop = workshop
        self._details = details
        self._view = view
        self._resolver = resolver
        self._any_serials = any_serials
        self._restored = restored
        self._draft: Draft | None = None  # what is written, once there is anything
        self._previous: dict[Oid, Tid] = {}  # of each object that is written, the serial it was changed from
        self._reads: dict[Oid, Tid] = {}
        self._resolved: set[Oid] = set()
        # Conflicts were looked for up to here; None: not at all, whatever has changed since.
        self._checked: Tid | None = None if any_serials else view.snapshot if view else workshop.commits.last
        self._voted = False
        self._writing = False  # whether this holds the writer lock
        self._ended = False
        self._require_in_order()

    # --- collecting ---

    def store(
        self,
        oid: Oid,
        serial: Tid,
        data: bytes | None,
        references: bytes | None,
        copied_from: Tid | None = None,
        *,
        opaque: bool = False,
    ) -> None:
        self._require_open()
        if data is not None:
            if len(data) > records.MAX_DATA:
                raise RecordTooLargeError(oid, len(data), records.MAX_DATA)
            if references is None and not opaque:
                references = pickles.references(data)
        if self._restored is not None:
            serial = self._workshop.lookup.newest(oid) or NO_TID
            copied_from = self._source(oid, data, None, copied_from)
        self._write(oid, serial, data, references, copied_from)

    def store_blob(
        self,
        oid: Oid,
        serial: Tid,
        data: bytes,
        references: bytes | None,
        path: str,
        copied_from: Tid | None = None,
    ) -> None:
        self._require_open()
        if references is None:
            references = pickles.references(data)
        try:
            facts = self._workshop.blobs.facts(path)
        except OSError as error:
            self.abort()
            raise storage_error(path, error) from error
        source = None
        if self._restored is not None:
            serial = self._workshop.lookup.newest(oid) or NO_TID
            source = self._source(oid, data, facts, copied_from)
        self._write(oid, serial, data, references, source, (facts, path))

    def _write(
        self,
        oid: Oid,
        serial: Tid,
        data: bytes | None,
        references: bytes | None,
        copied_from: Tid | None = None,
        blob: tuple[BlobFacts, str | None] | None = None,
    ) -> None:
        """Write a record, in place of one that was written before, and take over the file of its blob.

        A blob without a path is the one that was taken over with the record before.
        """
        facts, path = blob if blob is not None else (None, None)
        try:
            if self._draft is None:
                self._draft = self._workshop.lookup.journal.begin(self._workshop.new_token(), self._details)
            keeps_blob = facts is not None and path is None
            self._draft.add(oid, serial, data, references, copied_from, facts, keeps_blob=keeps_blob)
            if path is not None:
                self._draft.take_blob(oid, path)
        except OSError as error:
            if path is not None:
                self._workshop.blobs.discard(path)
            self.abort()
            raise storage_error(self._workshop.lookup.journal.path, error) from error
        self._previous[oid] = serial

    def _source(self, oid: Oid, data: bytes | None, blob: BlobFacts | None, copied_from: Tid | None) -> Tid | None:
        """The tid that restored data is said to come from, if there is the same data at that tid."""
        if copied_from is None or data is None:
            return None
        source = self._workshop.lookup.revision(oid, copied_from)
        is_same = source is not None and source.data == data and source.blob == blob
        return copied_from if is_same else None

    def _written(self, oid: Oid) -> Revision | None:
        """What is written for an object."""
        if self._draft is None or oid not in self._previous:
            return None
        return self._draft.read(oid)._replace(tid=NO_TID)

    def check_current(self, oid: Oid, serial: Tid) -> None:
        self._require_open()
        self._require_new()
        self._reads[oid] = serial

    def undo(self, tid: Tid) -> frozenset[Oid]:
        self._require_open()
        self._require_new()
        workshop = self._workshop
        undoing = Undoing(workshop.lookup, self._resolver, self._written, workshop.packed_upto())
        writes = undoing.undo(tid, upto=workshop.commits.durable)
        for oid, found in writes.items():
            blob = (found.blob, self._blob_again(tid, found)) if found.blob is not None else None
            self._write(oid, found.previous, found.data, found.references, found.copied_from, blob)
        return frozenset(writes)

    def _blob_again(self, undone: Tid, found: Revision) -> str:
        """A copy of the blob whose record an undo brings back."""
        blobs, before = self._workshop.blobs, found.copied_from or NO_TID
        try:
            return blobs.copied_committed(found.oid, before)
        except BlobMissingError as error:
            raise UndoError(undone, f"its data of transaction {before.hex()} are missing", found.oid) from error
        except OSError as error:
            self.abort()
            raise storage_error(self._workshop.lookup.journal.path, error) from error

    def _require_open(self) -> None:
        if self._ended or self._voted:
            raise ClosedError("the transaction")

    def _require_new(self) -> None:
        if self._restored is not None:
            raise UsageError("a restored transaction takes records only; nothing is checked or undone in it")

    def _require_in_order(self) -> None:
        tid, last = self._restored, self._workshop.commits.last
        if tid is not None and tid <= last:
            raise UsageError(
                f"transaction {tid.hex()} cannot be restored after {last.hex()}, which is there already: "
                "restore transactions in the order of their tids"
            )

    # --- vote ---

    def vote(self) -> frozenset[Oid]:
        self._require_open()
        self._voted = True
        workshop = self._workshop
        workshop.commits.require_sound()
        workshop.flusher.wait_for_room()
        try:
            self._check(workshop.commits.last)
            if self._draft is not None:
                self._cover_new_oids()
                self._draft.complete()
                self._draft.sync_blobs()
            self._writing = True  # first, so that whatever interrupts this, the lock is let go of
            workshop.commits.writer.acquire(self)
            workshop.commits.require_sound()
            self._require_in_order()
            if self._check(workshop.commits.last) and self._draft is not None:
                self._draft.complete()
            self._refuse_dangling()
        except OSError as error:
            self.abort()
            raise storage_error(workshop.lookup.journal.path, error) from error
        except ConflictError:
            self.abort()
            workshop.commits.rescue_dead()  # else nobody would ever see what this conflicts with
            raise
        except BaseException:
            self.abort()
            raise
        return frozenset(self._resolved)

    def _check(self, upto: Tid) -> bool:
        """Look for conflicts with transactions after those looked at; whether anything was written anew."""
        changed = self._workshop.commits.changed(self._checked, upto) if self._checked is not None else None
        suspects = self._previous.keys() if changed is None else changed & self._previous.keys()
        readers = self._reads if changed is None else changed & self._reads.keys()
        for oid in readers:
            committed = self._workshop.lookup.newest(oid) or NO_TID
            if committed != self._reads[oid] and oid not in self._previous:
                raise ReadConflictError(oid, self._reads[oid], committed, self._class_name(oid, committed))
        resolved = False
        for oid in sorted(suspects):
            committed = self._workshop.lookup.newest(oid) or NO_TID
            if committed != self._previous[oid]:
                if self._restored is not None or (self._any_serials and committed == NO_TID):
                    self._follow(oid, committed)
                else:
                    self._write(oid, committed, *self._resolve(oid, committed))
                    self._resolved.add(oid)
                resolved = True
        self._checked = upto
        return resolved

    def _follow(self, oid: Oid, committed: Tid) -> None:
        """Write a record again as it is, as the successor of what is current."""
        write = self._written(oid)
        if write is not None:
            blob = (write.blob, None) if write.blob is not None else None
            self._write(oid, committed, write.data, write.references, write.copied_from, blob)

    def _resolve(self, oid: Oid, committed: Tid) -> tuple[bytes, bytes]:
        """The merged record and its references. Raises ConflictError."""
        write, serial = self._written(oid), self._previous[oid]
        current = self._workshop.lookup.load(oid, committed)
        base = self._workshop.lookup.load(oid, serial) if serial != NO_TID else None
        if (
            write is None
            or write.data is None
            or current is None
            or current.data is None
            or base is None
            or base.data is None
            or base.tid != serial
        ):
            raise ConflictError(oid, serial, committed, self._class_name(oid, committed))
        conflict = Conflict(oid, serial, committed, base.data, current.data, write.data)
        return self._resolver(conflict)

    def _class_name(self, oid: Oid, tid: Tid) -> str | None:
        write = self._written(oid)
        data = write.data if write is not None else None
        if data is None:
            revision = self._workshop.lookup.load(oid, tid)
            data = revision.data if revision is not None else None
        try:
            return pickles.class_name(data) if data is not None else None
        except SerializationError:  # only a name for a message is wanted
            return None

    def _refuse_dangling(self) -> None:
        is_doomed = self._workshop.dooms.current
        if is_doomed is None:
            return
        for written, serial in self._previous.items():
            revision = self._written(written)
            mentioned = split_oids(revision.references or b"") if revision is not None else []
            for oid in (written, *mentioned):
                if is_doomed(oid):
                    last, name = self._workshop.commits.last, self._class_name(written, NO_TID)
                    raise DanglingReferenceError(oid, serial, last, name)

    def _cover_new_oids(self) -> None:
        new = [oid for oid, serial in self._previous.items() if serial == NO_TID]
        if new:
            self._workshop.oids.cover(max(new))

    # --- finish ---

    def finish(self) -> Tid:
        commits, journal = self._workshop.commits, self._workshop.lookup.journal
        if self._ended or not self._writing:
            raise UsageError("a transaction is finished after it has voted, once")
        draft = self._draft
        if draft is None:
            self._end()
            return commits.durable
        previous = commits.last
        tid = self._restored or next_tid(previous, self._workshop.clock())
        try:
            commits.begin()
            try:
                journal.name(draft, tid, previous)
            except OSError as error:  # it is a draft still
                commits.give_back()
                raise storage_error(journal.path, error) from error
            try:
                waiting = journal.commit(draft, self._details, tid, previous, commits.durable)
                self._workshop.publish(waiting)
            except OSError as error:
                raise commits.fail(f"a commit was interrupted while it wrote its header: {error}") from error
            self._end()
            commits.make_durable(tid, draft.sync)
        except BaseException:
            # As by Ctrl-C, too. What was named and is not known yet, the next who takes the writer lock looks at.
            try:
                commits.make_up(tid, draft.sync)
            finally:
                self.abort()
            raise
        finally:
            draft.close()
        if self._view is not None:
            self._view.committed(tid)
        self._workshop.flusher.notify()
        return tid

    def abort(self) -> None:
        if self._ended:
            return
        draft, self._draft = self._draft, None  # in one step: a directory must not be given back twice
        try:
            if draft is not None:
                with contextlib.suppress(OSError):  # a draft that cannot be removed is dropped by recovery
                    self._workshop.lookup.journal.discard(draft)
        finally:
            self._end()

    def _end(self) -> None:
        if self._writing:
            self._workshop.commits.writer.release(self)
            self._writing = False
        self._ended = True
