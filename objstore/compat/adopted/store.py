"""A storage of ZODB's as a `contracts.Store`: so that the same database runs on it.

Its records are ours already. What it offers is passed on: snapshots, conflicts, undo, history, packing. What it
does not is refused with MissingAbilityError, which names the storage and the ability. Full is what can undo;
others are taken as Minimal. A storage keeps no account of what it packed, of references, or of who reads:
`packed_upto` is unknown, packing takes no heed of snapshots, and a view that loses something to it raises
SnapshotTooOldError.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

from ZODB.FileStorage.FileStorage import RedundantPackWarning
from ZODB.interfaces import IMVCCStorage, IStorageRestoreable
from ZODB.serialize import referencesf

from objstore.compat.adopted import datafile
from objstore.compat.adopted.adapter import Refusal, adapted
from objstore.compat.adopted.blobs import REMEDY, AdoptedBlobs, has_blobs
from objstore.compat.adopted.datafile import Unread
from objstore.compat.adopted.failures import ours
from objstore.compat.adopted.pending import AdoptedPending, AdoptedRestoration
from objstore.compat.adopted.reading import Reading
from objstore.compat.adopted.records import is_plain
from objstore.compat.adopted.views import AdoptedView
from objstore.contracts import History, PackOptions, PackReport, Progress, Resolver, View
from objstore.errors import (
    ClosedError,
    ForkedConnectionError,
    HistoryMissingError,
    MissingAbilityError,
    ReadOnlyError,
    UsageError,
)
from objstore.ids import NO_TID, Oid, Tid, tid_moment, tid_seconds
from objstore.revisions import Details, Revision, RevisionSummary, Transaction


class AdoptedStore:
    """A `contracts.Store` over a ZODB storage, which it owns and closes. May be used by any thread."""

    def __init__(self, storage: Any, name: str, *, read_only: bool = False) -> None:
        """Adopt a storage that is open. `name` is for messages, and orders data managers."""
        self.storage = storage
        self._name = name
        self._pid = os.getpid()
        self._refusal = Refusal()
        with ours(name):
            self._base = adapted(storage, self._refusal)
            self._native = bool(IMVCCStorage.providedBy(storage))
            self._read_only = read_only or bool(storage.isReadOnly())
            self._undoes = bool(getattr(storage, "supportsUndo", bool)())
            instance = storage.new_instance() if self._native else None
        self._reading = Reading(name, storage, instance)
        self._blobs = AdoptedBlobs(self._reading, read_only=self._read_only) if has_blobs(storage) else None
        self._packing = Lock()  # held by the one pack of this process
        self._closed = False

    # --- facts ---

    @property
    def name(self) -> str:
        return self._name

    @property
    def history_mode(self) -> History:
        return History.FULL if self._undoes else History.MINIMAL

    @property
    def read_only(self) -> bool:
        return self._read_only

    def last_tid(self) -> Tid:
        self._require_open()
        return self._reading.last_tid()

    def packed_upto(self) -> Tid:
        return NO_TID

    def statistics(self) -> Mapping[str, int | float | str]:
        self._require_open()
        with self._reading.newest() as storage:
            return {
                "history": self.history_mode.value,
                "storage": type(self.storage).__name__,
                "last_tid": Tid(storage.lastTransaction() or NO_TID).hex(),
                "objects": len(storage),
                "bytes": storage.getSize(),
            }

    # --- reading ---

    def view(self, at: Tid | None = None) -> View:
        self._require_open()
        if at is not None and not self._undoes:
            if at < self.last_tid():
                raise HistoryMissingError(f"{self._name} keeps no past")
            at = None
        if at is not None and self._reading.is_packed(at):
            raise HistoryMissingError(f"{self._name} was packed to a later time than {tid_moment(at).isoformat()}")
        return AdoptedView(self._name, self._base, at, native=self._native)

    def revision(self, oid: Oid, tid: Tid) -> Revision:
        self._require_open()
        return self._reading.revision(oid, tid)

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        self._require_open()
        return self._reading.summaries(oid)

    def transaction(self, tid: Tid) -> Transaction | None:
        self._require_open()
        return self._reading.transaction(tid) if self._undoes else None

    def transactions(self, upto: Tid | None = None) -> Iterator[Transaction]:
        self._require_open()
        return self._reading.transactions(upto) if self._undoes else iter(())

    @property
    def keeps_blobs(self) -> bool:
        """Whether the storage was opened such that it keeps blobs."""
        return self._blobs is not None

    @property
    def blobs(self) -> AdoptedBlobs:
        """The files of blobs. Raises MissingAbilityError where the storage keeps none."""
        self._require_open()
        if self._blobs is None:
            raise MissingAbilityError(self._name, "keep blobs", REMEDY)
        return self._blobs

    # --- writing ---

    def new_oid(self) -> Oid:
        self._require_writable()
        return self._reading.new_oid()

    def begin(
        self,
        details: Details,
        view: View,
        resolver: Resolver,
        *,
        any_serials: bool = False,  # noqa: ARG002  # a storage compares them always
    ) -> AdoptedPending:
        self._require_writable()
        if not isinstance(view, AdoptedView):
            raise UsageError("a transaction begins on a view of the same store")
        self._require_bearable(details)
        return AdoptedPending(
            self._reading,
            self._base,
            details,
            view,
            resolver,
            self._refusal,
            self._blobs,
            keeps_bases=not self._undoes,
        )

    def restore(self, tid: Tid, details: Details) -> AdoptedRestoration:
        """Begin to write a transaction that was committed elsewhere, under the tid that it has there.

        Raises UsageError where `tid` is not later than the newest, MissingAbilityError.
        """
        self._require_writable()
        if not IStorageRestoreable.providedBy(self.storage) and not hasattr(self.storage, "restore"):
            raise MissingAbilityError(self._name, "take over transactions with their tids")
        last = self._reading.last_tid()
        if tid <= last:
            raise UsageError(f"{self._name} has transaction {last.hex()} already, so {tid.hex()} comes too late")
        self._require_bearable(details)
        if self._native:
            with ours(self._name):
                instance = self.storage.new_instance()
            return AdoptedRestoration(self._name, instance, details, tid, told=_nobody, release=instance.release)
        return AdoptedRestoration(
            self._name, self.storage, details, tid, told=self._base.invalidate, release=_nobody
        )

    def _require_bearable(self, details: Details) -> None:
        """A ZEO server hangs up on who sends it an extension with classes in it."""
        if type(self.storage).__module__.startswith("ZEO.") and not is_plain(details):
            raise MissingAbilityError(
                self._name, "keep a transaction's extension that is not made of plain values"
            )

    # --- for who moves data ---

    @contextmanager
    def instance(self) -> Iterator[Any]:
        """The storage as it is now, to be read from by one thread while inside."""
        self._require_open()
        if not self._native:
            yield self.storage
            return
        with ours(self._name):
            instance = self.storage.new_instance()
            instance.poll_invalidations()
        try:
            yield instance
        finally:
            instance.release()

    def newest_tid(self, oid: Oid) -> Tid:
        """The tid of the newest revision of an object; NO_TID where there is none, or none any more."""
        self._require_open()
        return self._reading.newest_tid(oid)

    def unread(self) -> Unread | None:
        """What is not read of a FileStorage's file, because it is damaged, or was never committed; else None."""
        self._require_open()
        base = datafile.file_storage(self.storage)
        return datafile.unread(base) if base is not None else None

    def require_whole(self) -> None:
        """Raises CorruptionError where a FileStorage has passed over what follows damaged bytes."""
        base = datafile.file_storage(self.storage)
        if base is not None:
            with ours(self._name):
                datafile.require_whole(base)

    def flush(self) -> None:
        """A storage has nothing that waits."""

    def pack(
        self,
        upto: Tid,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        options: PackOptions | None = None,
    ) -> PackReport:
        """Pack as the storage does. The report counts objects and bytes as the storage does, about; it has no
        number of revisions and transactions."""
        self._require_writable()
        if dry_run:
            raise MissingAbilityError(self._name, "tell what a pack would remove", "leave dry_run out")
        if options not in (None, PackOptions()):
            raise MissingAbilityError(self._name, "be told what a pack is to keep")
        if not self._packing.acquire(blocking=False):
            raise UsageError(f"{self._name} is being packed already; wait until that has ended")
        try:
            if progress is not None:
                progress("pack", 0, None)
            started, objects, size = time.monotonic(), *self._size()
            self._pack(tid_seconds(upto))
            kept, left = self._size()
        finally:
            self._packing.release()
        seconds = time.monotonic() - started
        return PackReport(upto, False, max(0, objects - kept), 0, 0, max(0, size - left), kept, seconds)

    def _pack(self, seconds: float) -> None:
        with ours(self._name):
            instance = self.storage.new_instance() if self._native else self._base
            try:
                instance.pack(seconds, referencesf)
            except RedundantPackWarning:
                return  # it was packed to a later time: nothing is left to do
            finally:
                if self._native:
                    instance.release()

    def _size(self) -> tuple[int, int]:
        with self._reading.newest() as storage:
            return len(storage), storage.getSize()

    # --- the end ---

    def _require_open(self) -> None:
        if self._pid != os.getpid():
            raise ForkedConnectionError(f"the store {self._name}")
        if self._closed:
            raise ClosedError(f"the store {self._name}")

    def _require_writable(self) -> None:
        self._require_open()
        if self._read_only:
            raise ReadOnlyError(f"the store {self._name}")

    def close(self) -> None:
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        try:
            self._reading.close()
        finally:
            with ours(self._name):
                self._base.close()


def _nobody(*_told: object) -> None:
    """Who has no need to know."""
