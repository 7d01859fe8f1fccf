"""A store of objstore's as a storage for ZODB.

`DirectoryStorage` is what an application makes, or a configuration, and what it closes. `ZODB.DB` asks it for an
instance for each connection (`instances`), which has a snapshot of its own in the store. Whoever else uses it, a
DemoStorage, a ZEO server, a script that copies, does so directly: then it shows what is current, and tells its
wrapper what others commit (`following`).

Blobs are files of the store, and part of its transactions (`blobs`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from threading import RLock
from typing import IO, Any, Unpack

import ZODB.interfaces
from zope.interface import implementer

from objstore.contracts import History, StoreOptions
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import POSKeyError, ReadOnlyError, UsageError
from objstore.ids import NO_TID, Oid, Tid
from objstore.machine.posix import PosixFilesystem
from objstore.objects.options import DatabaseOptions, Options, locate
from objstore.upkeep.pack import pack
from objstore.zodb.blobs import helper, open_committed, temporary_directory
from objstore.zodb.copying import copy_transactions
from objstore.zodb.following import Following
from objstore.zodb.instances import Instance, Instances
from objstore.zodb.listing import (
    Description,
    StoredTransaction,
    history,
    iterate,
    load_before,
    load_current,
    newest_changes,
    superset,
    undo_log,
)
from objstore.zodb.measuring import Measure
from objstore.zodb.packing import pack_storage
from objstore.zodb.resolving import Records, Resolution, Resolver
from objstore.zodb.transactions import Transactions
from objstore.zodb.translating import each_in_terms_of_zodb, in_terms_of_zodb


@implementer(
    ZODB.interfaces.IStorage,
    ZODB.interfaces.IMVCCStorage,
    ZODB.interfaces.IBlobStorageRestoreable,
    ZODB.interfaces.IStorageIteration,
    ZODB.interfaces.IStorageUndoable,
    ZODB.interfaces.IStorageCurrentRecordIteration,
    ZODB.interfaces.IExternalGC,
    ZODB.interfaces.ReadVerifyingStorage,
)
class DirectoryStorage:
    """The store at a path, or at a URL `objstore:///path?option=value`, as a storage.

        db = ZODB.DB(objstore.zodb.DirectoryStorage("/path/of/the/store"))

    A store is created where there is none, unless `create=False`. `history` ("full" or "minimal") and `format`
    are chosen then. `pack_gc=False` leaves objects that nothing refers to when it packs. The other options are
    the fields of `contracts.StoreOptions`. Raises UsageError for unknown options, OpenError and its kin,
    CorruptionError, StorageError: those of objstore. What its methods raise are ZODB's exceptions.
    """

    def __init__(self, path: str | os.PathLike[str], *, pack_gc: bool = True, **options: Unpack[Options]) -> None:
        location = locate(os.fspath(path), options)
        if location.database != DatabaseOptions():
            raise UsageError("a storage has no options of a database; give ZODB.DB its own")
        self._store = store = opened(location.path, location.store)
        self._pack_gc = pack_gc
        self._records = Records()
        self._resolver = Resolver(self._records, self._resolve)
        self._transactions = Transactions(self, store, self._records, self._resolver)
        self._instances = Instances(self, store, self._records, self._resolver)
        self._following = Following(store, lambda: self._instances.were_made)
        self._measure = Measure(store)
        self._blobs = store.blobs
        self.__name__ = store.name
        self._lock = RLock()  # a DemoStorage over this one takes it for its own

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__name__}>"

    # --- facts ---

    def getName(self) -> str:
        return self.__name__

    def sortKey(self) -> str:
        return self.__name__

    def isReadOnly(self) -> bool:
        return self._store.read_only

    def supportsUndo(self) -> bool:
        return self._store.history_mode is History.FULL

    @in_terms_of_zodb
    def __len__(self) -> int:
        return self._measure.objects

    @in_terms_of_zodb
    def getSize(self) -> int:
        return self._measure.size

    @in_terms_of_zodb
    def lastTransaction(self) -> bytes:
        return self._following.told

    def tpc_transaction(self) -> Any:
        """The transaction that was begun last, None where there is none."""
        return self._transactions.current

    # --- reading ---

    @in_terms_of_zodb
    def load(self, oid: bytes, version: str = "") -> tuple[bytes, bytes]:  # noqa: ARG002
        """The current record of an object, and its serial."""
        if self._following.is_needed:
            return load_current(self._store, Oid(oid), self._following.told)
        view = self._store.view()
        try:
            return view.load(Oid(oid))
        finally:
            view.close()

    @in_terms_of_zodb
    def loadBefore(self, oid: bytes, tid: bytes) -> tuple[bytes, bytes, bytes | None] | None:
        return load_before(self._store, Oid(oid), tid)

    @in_terms_of_zodb
    def loadSerial(self, oid: bytes, serial: bytes) -> bytes:
        data = self._store.revision(Oid(oid), Tid(serial)).data
        if data is None:
            raise POSKeyError(Oid(oid), tid=Tid(serial))
        return data

    def getTid(self, oid: bytes) -> bytes:
        """The serial of an object's current record."""
        return self.load(oid)[1]

    @in_terms_of_zodb
    def loadBlob(self, oid: bytes, serial: bytes) -> str:
        """The path of a file with a blob's data, which stays while that revision is kept. Nobody may change it."""
        return self._blobs.path(Oid(oid), Tid(serial))

    @in_terms_of_zodb
    def openCommittedBlobFile(self, oid: bytes, serial: bytes, blob: Any = None) -> IO[bytes]:
        return open_committed(self._blobs, Oid(oid), Tid(serial), blob)

    @in_terms_of_zodb
    def temporaryDirectory(self) -> str:
        return temporary_directory(self._blobs)

    @property
    def fshelper(self) -> Any:
        """What functions of ZODB ask of a storage with blobs, beside its methods."""
        return helper(self._blobs)

    @in_terms_of_zodb
    def history(self, oid: bytes, size: int = 1) -> list[Description]:
        return history(self._store, Oid(oid), size)

    def iterator(self, start: bytes | None = None, stop: bytes | None = None) -> Iterator[StoredTransaction]:
        return each_in_terms_of_zodb(iterate(self._store, start, stop))

    @in_terms_of_zodb
    def record_iternext(self, next: bytes | None = None) -> tuple[bytes, bytes, bytes, bytes | None]:
        return self._measure.record_after(next, self.load)

    @in_terms_of_zodb
    def undoLog(
        self, first: int = 0, last: int = -20, filter: Callable[[Description], object] | None = None
    ) -> list[Description]:
        return undo_log(self._store, first, last, filter)

    @in_terms_of_zodb
    def undoInfo(
        self, first: int = 0, last: int = -20, specification: Mapping[str, Any] | None = None
    ) -> list[Description]:
        return undo_log(self._store, first, last, superset(specification))

    @in_terms_of_zodb
    def lastInvalidations(self, size: int) -> list[tuple[bytes, list[bytes]]]:
        """What the newest transactions have changed, `size` of them at most, the oldest first."""
        return newest_changes(self._store, size)

    # --- writing ---

    @in_terms_of_zodb
    def new_oid(self) -> bytes:
        return self._store.new_oid()

    @in_terms_of_zodb
    def tpc_begin(self, transaction: Any, tid: bytes | None = None, status: str = " ") -> None:  # noqa: ARG002
        self._transactions.begin(transaction, tid)

    @in_terms_of_zodb
    def store(self, oid: bytes, serial: bytes | None, data: bytes, version: str, transaction: Any) -> None:  # noqa: ARG002
        self._require_writable()
        self._transactions.store(transaction, oid, serial, data)

    @in_terms_of_zodb
    def storeBlob(
        self,
        oid: bytes,
        serial: bytes | None,
        data: bytes,
        blobfilename: str,
        version: str,  # noqa: ARG002
        transaction: Any,
    ) -> None:
        self._require_writable()
        self._transactions.store_blob(transaction, oid, serial, data, blobfilename)

    @in_terms_of_zodb
    def restoreBlob(
        self,
        oid: bytes,
        serial: bytes,  # noqa: ARG002
        data: bytes,
        blobfilename: str,
        prev_txn: bytes | None,
        transaction: Any,
    ) -> None:
        self._require_writable()
        self._transactions.restore_blob(transaction, oid, data, blobfilename, prev_txn)

    @in_terms_of_zodb
    def restore(
        self,
        oid: bytes,
        serial: bytes,  # noqa: ARG002
        data: bytes | None,
        version: str,  # noqa: ARG002
        prev_txn: bytes | None,
        transaction: Any,
    ) -> None:
        self._require_writable()
        self._transactions.restore(transaction, oid, data, prev_txn)

    @in_terms_of_zodb
    def deleteObject(self, oid: bytes, serial: bytes, transaction: Any) -> None:
        self._require_writable()
        self._transactions.store(transaction, oid, serial, None)

    @in_terms_of_zodb
    def checkCurrentSerialInTransaction(self, oid: bytes, serial: bytes, transaction: Any) -> None:
        self._transactions.check_current(transaction, oid, serial)

    @in_terms_of_zodb
    def undo(self, transaction_id: bytes, transaction: Any) -> tuple[bytes, list[bytes]]:
        """Undo a transaction: nothing yet, for the tid is not known before the end; and the objects it writes."""
        self._require_writable()
        return NO_TID, self._transactions.undo(transaction, transaction_id)

    @in_terms_of_zodb
    def tpc_vote(self, transaction: Any) -> list[bytes]:
        return self._transactions.vote(transaction)

    @in_terms_of_zodb
    def tpc_finish(self, transaction: Any, func: Callable[[bytes], object] | None = None) -> bytes:
        return self._following.finish(lambda: self._transactions.finish(transaction), func)

    @in_terms_of_zodb
    def tpc_abort(self, transaction: Any) -> None:
        self._transactions.abort(transaction)

    def _require_writable(self) -> None:
        if self._store.read_only:
            raise ReadOnlyError(f"the storage {self.__name__}")

    def copyTransactionsFrom(self, other: Any, verbose: bool = False) -> None:  # noqa: ARG002
        """Restore every transaction of another storage, with its blobs, under the tids that they have there.

        Raises ZODB's StorageError where it has records of blobs, and was opened without their files.
        """
        copy_transactions(other, self)

    def tryToResolveConflict(
        self, oid: bytes, committedSerial: bytes, oldSerial: bytes, newpickle: bytes, committedData: bytes = b""
    ) -> bytes:
        """The merged record. Raises ZODB's ConflictError."""
        resolution = Resolution(self._records, self.loadSerial)
        return resolution.resolve(oid, committedSerial, oldSerial, newpickle, committedData)

    def _resolve(self, *arguments: bytes) -> bytes:
        return self.tryToResolveConflict(*arguments)  # looked up now, because servers replace it

    # --- with others ---

    def new_instance(self) -> Instance:
        return self._instances.new()

    def release(self) -> None:
        """Nothing: what a connection has to let go of is its instance."""

    def poll_invalidations(self) -> list[bytes]:
        """Nothing: who reads here directly is told what is invalid, and needs not ask."""
        return []

    @in_terms_of_zodb
    def sync(self, force: bool = True) -> None:
        if force:
            self._following.catch_up()

    def registerDB(self, wrapper: Any) -> None:
        self._records.register(wrapper)
        self._following.register(wrapper)

    @in_terms_of_zodb
    def pack(
        self,
        pack_time: float,
        referencesf: Callable[..., Any] | None = None,
        gc: bool | None = None,
    ) -> None:
        """Drop what was superseded by a time, in seconds since 1970, and, with `gc`, what nothing refers to."""
        self._instances.refresh()
        pack_storage(self._store, pack_time, self._pack_gc if gc is None else gc, self._records, referencesf)
        self._measure.forget()

    @in_terms_of_zodb
    def close(self) -> None:
        self._transactions.close()
        self._instances.close()
        self._store.close()

    def cleanup(self) -> None:
        """Nothing: a store is removed by removing its directory."""


def opened(path: str, options: StoreOptions) -> DirectoryStore:
    """A store, open. Raises OpenError and its kin, CorruptionError, StorageError."""
    return open_store(os.path.abspath(path), options, filesystem=PosixFilesystem(), packer=pack, clock=_now)


def _now() -> float:
    return time.time()  # looked up whenever it is asked: ZODB's tests, and those of applications, replace it
