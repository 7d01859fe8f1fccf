"""Writing a transaction to an adopted storage.

A storage that is not ours may let one transaction at a time begin, so none begins before the vote: what is
stored until then is kept aside. A vote is therefore: 1. begin; 2. store and check everything; 3. the storage's
own vote. Where it finds a conflict, its transaction is aborted, the view is moved on, what others have changed
is resolved by our rules, and the vote begins anew, on the ground of what the view shows now: so that to the
storage it is as any other transaction. After some rounds the conflict is raised.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ZODB import POSException

from objstore.compat.adopted.adapter import Refusal
from objstore.compat.adopted.blobs import REMEDY, AdoptedBlobs
from objstore.compat.adopted.failures import ours, undo_refusal
from objstore.compat.adopted.reading import Reading
from objstore.compat.adopted.records import metadata
from objstore.compat.adopted.views import AdoptedView
from objstore.contracts import Conflict, Resolver
from objstore.errors import (
    ClosedError,
    ConflictError,
    MissingAbilityError,
    POSKeyError,
    SerializationError,
    UndoError,
    UsageError,
)
from objstore.formats import pickles
from objstore.ids import NO_TID, Oid, Tid
from objstore.objects.savepoints import SavepointStore
from objstore.revisions import Details

ROUNDS = 10
"""How often a vote is tried: each but the first was overtaken by other writers."""
MEMORY = 8 * 2**20
"""Bytes of a transaction that are kept in memory until its vote; what is more goes to a temporary file."""


class StorageTransaction:
    """A transaction of a storage's instance, from its beginning to its end."""

    def __init__(self, name: str, instance: Any, details: Details) -> None:
        self.name = name
        self.instance = instance
        self._details = details
        self._metadata: Any = None

    def begin(self, *restored: object) -> Any:
        """Begin, and return what the storage knows the transaction by. `restored` are a tid and a status."""
        begun = metadata(self._details)
        self.instance.tpc_begin(begun, *restored)
        self._metadata = begun
        return begun

    def vote(self) -> set[Oid]:
        """The oids that the storage has changed by itself."""
        return {Oid(oid) for oid in self.instance.tpc_vote(self._metadata) or ()}

    def finish(self, *told: Callable[[bytes], object]) -> Tid | None:
        """Commit; the tid, from storages that tell it. `told` is called with it while nobody else commits."""
        begun, self._metadata = self._metadata, None
        try:
            tid = self.instance.tpc_finish(begun, *told)
        except BaseException:
            self.instance.tpc_abort(begun)
            raise
        return Tid(tid) if tid else None

    def abort(self) -> None:
        """Give it up, if it has begun."""
        begun, self._metadata = self._metadata, None
        if begun is not None:
            self.instance.tpc_abort(begun)


class AdoptedPending:
    """A `contracts.PendingTransaction` that stores, or undoes."""

    def __init__(
        self,
        reading: Reading,
        base: Any,
        details: Details,
        view: AdoptedView,
        resolver: Resolver,
        refusal: Refusal,
        blobs: AdoptedBlobs | None,
        *,
        keeps_bases: bool,
    ) -> None:
        """`blobs` is None where the storage keeps none. `keeps_bases`: what a change was made from is to be kept,
        because the storage forgets it."""
        self._name = reading.name
        self._reading = reading
        self._base = base
        self._details = details
        self._view = view
        self._resolver = resolver
        self._refusal = refusal
        self._blobs = blobs
        self._written = SavepointStore(MEMORY, blobs.discard) if blobs is not None else SavepointStore(MEMORY)
        self._reads: dict[Oid, Tid] = {}
        self._resolved: set[Oid] = set()
        self._keeps_bases = keeps_bases
        self._bases: dict[Oid, tuple[bytes, Tid]] = {}
        self._at_storage: StorageTransaction | None = None
        self._undo_instance: Any = None
        self._begun: Any = None
        self._undone = NO_TID
        self._voted = self._ended = False

    # --- collecting ---

    def store(
        self,
        oid: Oid,
        serial: Tid,
        data: bytes | None,
        references: bytes | None,
        copied_from: Tid | None = None,  # noqa: ARG002
        *,
        opaque: bool = False,  # noqa: ARG002  # no storage is told of references
    ) -> None:
        self._require_open()
        if data is None:
            raise MissingAbilityError(self._name, "delete an object")
        self._require_no_undo()
        self._written.store(oid, serial, data, references)

    def store_blob(
        self,
        oid: Oid,
        serial: Tid,
        data: bytes,
        references: bytes | None,
        path: str,
        copied_from: Tid | None = None,  # noqa: ARG002
    ) -> None:
        self._require_open()
        if self._blobs is None:
            raise MissingAbilityError(self._name, "keep blobs", REMEDY)
        self._require_no_undo()
        self._written.store_blob(oid, serial, data, references, path)

    def _require_no_undo(self) -> None:
        if self._undo_instance is not None:
            raise MissingAbilityError(self._name, "store and undo in one transaction")

    def check_current(self, oid: Oid, serial: Tid) -> None:
        self._require_open()
        self._reads[oid] = serial

    def undo(self, tid: Tid) -> frozenset[Oid]:
        self._require_open()
        if len(self._written):
            raise MissingAbilityError(self._name, "store and undo in one transaction")
        try:
            with ours(self._name), self._undoing(tid):
                if self._at_storage is None:
                    self._undo_instance = getattr(self._base, "undo_instance", self._base.new_instance)()
                    self._at_storage = StorageTransaction(self._name, self._undo_instance, self._details)
                    self._begun = self._at_storage.begin()
                self._undone = tid
                done = self._undo_instance.undo(base64.encodebytes(tid).rstrip(), self._begun)
        except BaseException:
            self.abort()
            raise
        return frozenset(Oid(oid) for oid in done[1]) if done else frozenset()

    @contextmanager
    def _undoing(self, tid: Tid) -> Iterator[None]:
        try:
            yield
        except POSException.POSError as error:
            refusal = undo_refusal(error)
            if refusal is None:
                raise
            raise UndoError(tid, *refusal) from error

    def _require_open(self) -> None:
        if self._ended or self._voted:
            raise ClosedError("the transaction")

    # --- vote ---

    def vote(self) -> frozenset[Oid]:
        self._require_open()
        self._voted = True
        try:
            if self._at_storage is not None:
                with ours(self._name), self._undoing(self._undone):
                    self._resolved |= self._at_storage.vote()
            elif len(self._written) or self._reads:
                self._vote_stores()
        except BaseException:
            self.abort()
            raise
        return frozenset(self._resolved)

    def _vote_stores(self) -> None:
        for _ in range(ROUNDS):
            self._at_storage = StorageTransaction(self._name, self._view.instance, self._details)
            try:
                with self._refusal.during(self._keep_bases), ours(self._name):
                    self._store_all(self._at_storage)
                    self._resolved |= self._at_storage.vote()
            except ConflictError as error:
                failure = error
                with ours(self._name):
                    self._at_storage.abort()
                self._reading.settle()
                self._view.catch_up()
                if not self._resolve_all():
                    break
            else:
                return
        if failure.class_name is None:
            failure.class_name = self._class_name(failure.oid)
        raise failure

    def _store_all(self, transaction: StorageTransaction) -> None:
        begun = transaction.begin()
        instance = self._view.instance
        for oid, serial in self._reads.items():
            if oid not in self._written:
                instance.checkCurrentSerialInTransaction(oid, serial, begun)
        for oid, written in self._written.all():
            if written.blob is None or self._blobs is None:
                instance.store(oid, written.serial, written.data, "", begun)
            else:  # a storage takes it at once, and removes it where its transaction is aborted
                path = self._blobs.again(written.blob)
                try:
                    instance.storeBlob(oid, written.serial, written.data, path, "", begun)
                except BaseException:
                    self._blobs.discard(path)
                    raise

    def _resolve_all(self) -> bool:
        """Merge what others have changed; whether there was anything. Raises ConflictError."""
        for oid, serial in self._reads.items():
            if oid not in self._written and self._current(oid)[1] != serial:
                return False
        some = False
        for oid, written in list(self._written.all()):
            current, committed = self._current(oid)
            if committed != written.serial:
                base = self._based_on(oid, written.serial)
                if current is None or base is None:
                    raise ConflictError(oid, written.serial, committed, self._class_name(oid))
                conflict = Conflict(oid, written.serial, committed, base, current, written.data)
                self._written.store(oid, committed, *self._resolver(conflict))
                self._resolved.add(oid)
                some = True
        return some

    def _current(self, oid: Oid) -> tuple[bytes | None, Tid]:
        try:
            return self._view.load(oid)
        except POSKeyError:
            return None, NO_TID

    def _keep_bases(self) -> None:
        """A conflict was met: keep what the changes were made from, while a storage without history shows it."""
        if self._keeps_bases:
            for oid, written in self._written.all():
                if oid not in self._bases and written.serial != NO_TID:
                    with suppress(POSKeyError):
                        self._bases[oid] = self._view.load(oid)

    def _based_on(self, oid: Oid, serial: Tid) -> bytes | None:
        """The record that a change was made from; None where the storage has it no more."""
        if serial == NO_TID:
            return None
        data, kept = self._bases.get(oid, (b"", NO_TID))
        if kept == serial:
            return data
        try:
            return self._reading.record(oid, serial)
        except POSKeyError:
            return None

    def _class_name(self, oid: Oid) -> str | None:
        written = self._written.load(oid)
        try:
            return pickles.class_name(written.data) if written is not None else None
        except SerializationError:  # only a name for a message is wanted
            return None

    # --- the end ---

    def finish(self) -> Tid:
        if self._ended or not self._voted:
            raise UsageError("a transaction is finished after it has voted, once")
        transaction, self._at_storage = self._at_storage, None
        try:
            tid = None
            with ours(self._name):
                if transaction is not None:
                    tid = transaction.finish()
            return tid or self._reading.last_tid()
        finally:
            self.abort()

    def abort(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._written.close()
        transaction, self._at_storage = self._at_storage, None
        with ours(self._name):
            try:
                if transaction is not None:
                    transaction.abort()
            finally:
                if self._undo_instance is not None:
                    self._undo_instance.release()


class AdoptedRestoration:
    """A `contracts.PendingTransaction` under a tid that is given: records are taken as they come.

    `told` learns of the tid and the oids; `release` is called at the end.
    """

    def __init__(
        self,
        name: str,
        instance: Any,
        details: Details,
        tid: Tid,
        *,
        told: Callable[[bytes, list[Oid]], object],
        release: Callable[[], object],
    ) -> None:
        self._name = name
        self._instance = instance
        self._tid = tid
        self._told = told
        self._release = release
        self._transaction = StorageTransaction(name, instance, details)
        self._begun: Any = None
        self._oids: list[Oid] = []
        self._voted = self._ended = False

    def store(
        self,
        oid: Oid,
        serial: Tid,  # noqa: ARG002  # what is restored follows whatever is there
        data: bytes | None,
        references: bytes | None,  # noqa: ARG002
        copied_from: Tid | None = None,
        *,
        opaque: bool = False,  # noqa: ARG002
    ) -> None:
        with self._restoring(oid, data, copied_from) as source:
            self._instance.restore(oid, self._tid, data, "", source, self._begun)

    def store_blob(
        self,
        oid: Oid,
        serial: Tid,  # noqa: ARG002
        data: bytes,
        references: bytes | None,  # noqa: ARG002
        path: str,
        copied_from: Tid | None = None,
    ) -> None:
        with self._restoring(oid, data, copied_from) as source:
            self._instance.restoreBlob(oid, self._tid, data, path, source, self._begun)

    @contextmanager
    def _restoring(self, oid: Oid, data: bytes | None, copied_from: Tid | None) -> Iterator[Tid | None]:
        """Begin, where that was not done; then the tid that a record was copied from, if it is there."""
        self._require_open()
        with ours(self._name, oid):
            if self._begun is None:
                self._begun = self._transaction.begin(self._tid, " ")
            if copied_from is not None and not self._has(oid, copied_from, data):
                copied_from = None  # a FileStorage would refuse it
            yield copied_from
        self._oids.append(oid)

    def _has(self, oid: Oid, tid: Tid, data: bytes | None) -> bool:
        try:
            return bool(self._instance.loadSerial(oid, tid) == data)
        except POSException.POSKeyError:
            return False

    def check_current(self, oid: Oid, serial: Tid) -> None:
        raise UsageError(f"nothing is checked in a transaction that is restored: {oid.hex()} at {serial.hex()}")

    def undo(self, tid: Tid) -> frozenset[Oid]:
        raise UsageError(f"nothing is undone in a transaction that is restored: {tid.hex()}")

    def _require_open(self) -> None:
        if self._ended or self._voted:
            raise ClosedError("the transaction")

    def vote(self) -> frozenset[Oid]:
        self._require_open()
        self._voted = True
        if self._begun is not None:
            with ours(self._name):
                self._transaction.vote()
        return frozenset()

    def finish(self) -> Tid:
        if self._ended or not self._voted:
            raise UsageError("a transaction is finished after it has voted, once")
        try:
            if self._begun is not None:
                with ours(self._name):
                    self._transaction.finish(lambda tid: self._told(tid, self._oids))
        finally:
            self.abort()
        return self._tid

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            with ours(self._name):
                try:
                    self._transaction.abort()
                finally:
                    self._release()
