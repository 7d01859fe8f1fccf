"""A store that is obviously right: everything in dictionaries, nothing clever, nothing durable.

It is what the stores of the engine are compared with, and what the object layer is tried on first.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from threading import Lock

from objstore.contracts import Conflict, History, PackReport, Progress, Resolver
from objstore.errors import (
    ClosedError,
    ConflictError,
    DanglingReferenceError,
    HistoryMissingError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    UndoError,
)
from objstore.formats import pickles
from objstore.ids import MAX_TID, NO_TID, ROOT, Oid, Tid, next_tid, oid_from, split_oids
from objstore.revisions import Details, Revision, RevisionSummary, Transaction


class ModelStore:
    """A `contracts.Store`. Minimal differs from Full in what it lets one ask for only."""

    def __init__(
        self,
        history: History = History.FULL,
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = "model"
        self.history_mode = history
        self.read_only = read_only
        self.clock = clock
        self.objects: dict[Oid, list[Revision]] = {}  # oldest first
        self.log: list[Transaction] = []  # oldest first
        self.views: set[ModelView] = set()
        self.writer = Lock()
        self.closed = False
        self._oids = 0
        self._packed = NO_TID
        self._removed: set[Oid] = set()

    # --- reading ---

    def last_tid(self) -> Tid:
        return self.log[-1].tid if self.log else NO_TID

    def found(self, oid: Oid, upto: Tid) -> Revision | None:
        return next((each for each in reversed(self.objects.get(oid, [])) if each.tid <= upto), None)

    def changed(self, after: Tid, upto: Tid, own: set[Tid]) -> frozenset[Oid]:
        start, end = (bisect_right(self.log, tid, key=lambda each: each.tid) for tid in (after, upto))
        return frozenset(oid for each in self.log[start:end] if each.tid not in own for oid in each.oids)

    def view(self, at: Tid | None = None) -> ModelView:
        self.require_open()
        past = at is not None and at < self.last_tid()
        if past and (self.history_mode is History.MINIMAL or at < self._packed):
            raise HistoryMissingError("the past is not kept")
        return ModelView(self, at)

    def revision(self, oid: Oid, tid: Tid) -> Revision:
        found = self.found(oid, tid)
        if found is None or found.tid != tid:
            raise POSKeyError(oid, tid=tid)
        return found

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        kept = self.objects.get(oid, [])
        if not kept:
            raise POSKeyError(oid)
        for each in reversed(kept if self.history_mode is History.FULL else kept[-1:]):
            size = len(each.data or b"")
            yield RevisionSummary(
                oid, each.tid, each.previous, size, each.data is None, each.references, each.copied_from
            )

    def transaction(self, tid: Tid) -> Transaction | None:
        return next((each for each in self.transactions() if each.tid == tid), None)

    def transactions(self, upto: Tid | None = None) -> Iterator[Transaction]:
        kept = self.log if self.history_mode is History.FULL else []
        return (each for each in reversed(list(kept)) if upto is None or each.tid <= upto)

    def packed_upto(self) -> Tid:
        return self._packed

    def statistics(self) -> Mapping[str, int | float | str]:
        return {"history": self.history_mode.value, "snapshots": len(self.views)}

    # --- writing ---

    def require_open(self) -> None:
        if self.closed:
            raise ClosedError("the store model")

    def new_oid(self) -> Oid:
        if self.read_only:
            raise ReadOnlyError("model")
        self._oids += 1
        return oid_from(self._oids)

    def begin(self, details: Details, view: ModelView, resolver: Resolver) -> ModelPending:
        self.require_open()
        if self.read_only:
            raise ReadOnlyError("model")
        return ModelPending(self, details, view, resolver)

    def append(self, details: Details, writes: Mapping[Oid, Revision]) -> Tid:
        tid = next_tid(self.last_tid(), self.clock())
        for oid, write in writes.items():
            self.objects.setdefault(oid, []).append(write._replace(tid=tid))
        self.log.append(Transaction(tid, self.last_tid(), details, tuple(writes)))
        return tid

    def dangling(self, writes: Mapping[Oid, Revision]) -> Oid | None:
        """A packed object that these writes change or refer to."""
        wanted = {oid for oid, write in writes.items() if write.previous != NO_TID}
        wanted.update(oid for write in writes.values() for oid in split_oids(write.references or b""))
        return next(iter(wanted & self._removed), None)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    # --- packing ---

    def pack(self, upto: Tid, *, dry_run: bool = False, progress: Progress | None = None) -> PackReport:
        if self.read_only:
            raise ReadOnlyError("model")
        if progress is not None:
            progress("pack", 0, None)
        with self.writer:
            upto = min(upto, self.last_tid(), *(view.snapshot for view in self.views), MAX_TID)
            kept = {oid: self._needed(revisions, upto) for oid, revisions in self.objects.items()}
            reachable = self._reachable(kept, upto)
            gone = self.objects.keys() - reachable
            dropped = sum(len(self.objects[oid]) - len(kept[oid]) for oid in reachable)
            dropped += sum(len(self.objects[oid]) for oid in gone)
            if not dry_run:
                self.objects = {oid: kept[oid] for oid in reachable}
                self._removed |= gone
                self._packed = max(self._packed, upto)
            return PackReport(upto, dry_run, len(gone), dropped, 0, 0, len(reachable), 0.0)

    def _needed(self, revisions: list[Revision], upto: Tid) -> list[Revision]:
        """What is not superseded by `upto`."""
        newer = [each for each in revisions if each.tid > upto]
        return revisions[: len(revisions) - len(newer)][-1:] + newer

    def _reachable(self, kept: Mapping[Oid, list[Revision]], upto: Tid) -> set[Oid]:
        """What the root, or anything written since `upto`, leads to."""
        waiting = [ROOT, *(oid for oid, revisions in kept.items() if revisions[-1].tid > upto)]
        found: set[Oid] = set()
        while waiting:
            oid = waiting.pop()
            if oid in kept and oid not in found:
                found.add(oid)
                waiting += [to for each in kept[oid] for to in split_oids(each.references or b"")]
        return found


class ModelView:
    """A `contracts.View`."""

    def __init__(self, store: ModelStore, at: Tid | None) -> None:
        self._store = store
        self._fixed = at is not None
        self.snapshot = store.last_tid() if at is None else min(at, store.last_tid())
        self.own: set[Tid] = set()
        store.views.add(self)

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        self._store.require_open()
        found = self._store.found(oid, self.snapshot)
        if found is None or found.data is None:
            raise POSKeyError(oid, tid=self.snapshot)
        return found.data, found.tid

    def advance(self) -> frozenset[Oid]:
        if self._fixed:
            return frozenset()
        last = self._store.last_tid()
        changed = self._store.changed(self.snapshot, last, self.own)
        self.snapshot = last
        return changed

    def close(self) -> None:
        self._store.views.discard(self)


class ModelPending:
    """A `contracts.PendingTransaction`."""

    def __init__(self, store: ModelStore, details: Details, view: ModelView, resolver: Resolver) -> None:
        self._store = store
        self._details = details
        self._view = view
        self._resolver = resolver
        self._writes: dict[Oid, Revision] = {}
        self._reads: dict[Oid, Tid] = {}
        self._voted = False

    def store(
        self, oid: Oid, serial: Tid, data: bytes | None, references: bytes | None, copied_from: Tid | None = None
    ) -> None:
        if references is None and data is not None:
            references = pickles.references(data)
        self._writes[oid] = Revision(oid, NO_TID, serial, data, references, copied_from)

    def check_current(self, oid: Oid, serial: Tid) -> None:
        self._reads[oid] = serial

    def vote(self) -> frozenset[Oid]:
        self._store.writer.acquire()
        self._voted = True
        try:
            for oid, serial in self._reads.items():
                current = self._current(oid)
                if current != serial and oid not in self._writes:
                    raise ReadConflictError(oid, serial, current)
            resolved = {oid for oid, write in self._writes.items() if write.previous != self._current(oid)}
            for oid in resolved:
                self._writes[oid] = self._resolve(self._writes[oid])
            missing = self._store.dangling(self._writes)
            if missing is not None:
                raise DanglingReferenceError(missing, NO_TID, self._store.last_tid())
        except BaseException:
            self.abort()
            raise
        return frozenset(resolved)

    def _current(self, oid: Oid) -> Tid:
        found = self._store.found(oid, MAX_TID)
        return found.tid if found is not None else NO_TID

    def _resolve(self, write: Revision) -> Revision:
        old = self._store.found(write.oid, write.previous)
        current = self._store.found(write.oid, MAX_TID)
        serial = current.tid if current is not None else NO_TID
        data = [each.data for each in (old, current, write) if each is not None and each.data is not None]
        if len(data) < 3 or old is None or old.tid != write.previous:
            raise ConflictError(write.oid, write.previous, serial)
        merged, references = self._resolver(Conflict(write.oid, write.previous, serial, *data))
        return write._replace(previous=serial, data=merged, references=references)

    def finish(self) -> Tid:
        tid = self._store.append(self._details, self._writes)
        self._view.own.add(tid)
        self.abort()
        return tid

    def abort(self) -> None:
        if self._voted:
            self._voted = False
            self._store.writer.release()

    # --- undo, by ZODB's rules ---

    def undo(self, tid: Tid) -> frozenset[Oid]:
        if self._store.history_mode is History.MINIMAL or tid <= self._store.packed_upto():
            raise HistoryMissingError("the past is not kept")
        undone = self._store.transaction(tid)
        if undone is None:
            raise UndoError(tid, "there is no such transaction")
        self._writes.update({oid: self._undone(oid, tid) for oid in undone.oids})
        return frozenset(undone.oids)

    def _undone(self, oid: Oid, tid: Tid) -> Revision:
        there = self._store.revision(oid, tid)
        before = self._store.found(oid, there.previous) if there.previous != NO_TID else None
        stored = self._store.found(oid, MAX_TID)
        current = self._writes.get(oid, stored)
        serial = stored.tid
        if current.data == there.data:
            data = before.data if before is not None else None
            copied = before.tid if before is not None else None
            return Revision(oid, NO_TID, serial, data, before.references if before else None, copied)
        if before is None or None in (before.data, current.data, there.data):
            raise UndoError(tid, "it was changed by a later transaction", oid)
        try:
            data, references = self._resolver(
                Conflict(oid, tid, stored.tid, there.data, current.data, before.data)
            )
        except ConflictError as error:
            raise UndoError(tid, "it was changed by a later transaction", oid) from error
        return Revision(oid, NO_TID, serial, data, references)
