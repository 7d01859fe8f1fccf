"""A storage for each connection, with a snapshot of its own in the store.

`ZODB.DB` makes one for each connection, and keeps it as long as that. One of a connection that waits
in the pool would hold its snapshot, and with it what a pack could drop: so those are moved on now and then,
and before a pack. What that invalidates is told when they are used again.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Lock
from typing import IO, Any

import ZODB.interfaces
from zope.interface import implementer

from objstore.contracts import View
from objstore.engine.store import DirectoryStore
from objstore.errors import ObjstoreError
from objstore.ids import NO_TID, Oid
from objstore.objects.prefetching import Prefetched
from objstore.zodb.listing import Description
from objstore.zodb.resolving import Records, Resolver
from objstore.zodb.transactions import Transactions
from objstore.zodb.translating import in_terms_of_zodb, translated

logger = logging.getLogger(__name__)

REFRESH_AGE = 5.0
"""Seconds for which an instance that waits may keep its snapshot."""


@implementer(
    ZODB.interfaces.IStorage,
    ZODB.interfaces.IMVCCStorage,
    ZODB.interfaces.IMVCCPrefetchStorage,
    ZODB.interfaces.IMVCCAfterCompletionStorage,
    ZODB.interfaces.IBlobStorage,
    ZODB.interfaces.IStorageUndoable,
    ZODB.interfaces.ReadVerifyingStorage,
)
class Instance:
    """The storage of one connection. Made by `DirectoryStorage.new_instance`; used by one thread at a time."""

    def __init__(
        self, storage: Any, store: DirectoryStore, records: Records, resolver: Resolver, moved: Callable[[], None]
    ) -> None:
        """`moved` is called with each poll: a time to look after the others."""
        self._storage = storage
        self._store = store
        self._records = records
        self._moved = moved
        self._transforms = True  # what a wrapper would do, if no wrapper stands around this instance
        self._lock = Lock()  # guards the snapshot against being moved on while it is used
        self._waits = False
        self._missed: set[bytes] | None = set()  # invalid since it waits; None: anything may be
        self._prefetched = Prefetched()
        self.view: View = store.view()
        self._transactions = Transactions(self, store, records, resolver, lambda: self.view)

    # --- facts, which are the storage's ---

    def getName(self) -> str:
        return str(self._storage.getName())

    def sortKey(self) -> str:
        return str(self._storage.sortKey())

    def isReadOnly(self) -> bool:
        return self._store.read_only

    def supportsUndo(self) -> bool:
        return bool(self._storage.supportsUndo())

    def __len__(self) -> int:
        return len(self._storage)

    def getSize(self) -> int:
        return int(self._storage.getSize())

    @in_terms_of_zodb
    def lastTransaction(self) -> bytes:
        return self._store.last_tid()

    def history(self, oid: bytes, size: int = 1) -> list[Description]:
        found: list[Description] = self._storage.history(oid, size)
        return found

    def undoLog(
        self, first: int = 0, last: int = -20, filter: Callable[[Description], object] | None = None
    ) -> list[Description]:
        found: list[Description] = self._storage.undoLog(first, last, filter)
        return found

    def undoInfo(
        self, first: int = 0, last: int = -20, specification: Mapping[str, Any] | None = None
    ) -> list[Description]:
        found: list[Description] = self._storage.undoInfo(first, last, specification)
        return found

    def pack(
        self, pack_time: float, referencesf: Callable[..., Any] | None = None, gc: bool | None = None
    ) -> None:
        self._storage.pack(pack_time, referencesf, gc)

    # --- reading ---

    def load(self, oid: bytes, version: str = "") -> tuple[bytes, bytes]:  # noqa: ARG002
        """The record that this snapshot shows, and its serial."""
        if self._waits:
            self._stay()
        try:
            found = self._prefetched.take(Oid(oid)) if self._prefetched else None
            data, serial = found or self.view.load(Oid(oid))
        except ObjstoreError as error:
            raise translated(error) from error
        return self._unwrapped(data), serial

    @in_terms_of_zodb
    def prefetch(self, oids: Iterable[bytes]) -> None:
        """Read records ahead, in the order in which they lie on the disk."""
        self._prefetched.read(self.view, map(Oid, oids))

    def loadBefore(self, oid: bytes, tid: bytes) -> tuple[bytes, bytes, bytes | None] | None:
        found = self._storage.loadBefore(oid, tid)
        return (self._unwrapped(found[0]), *found[1:]) if found is not None else None

    def loadSerial(self, oid: bytes, serial: bytes) -> bytes:
        return self._unwrapped(self._storage.loadSerial(oid, serial))

    def _unwrapped(self, data: bytes) -> bytes:
        return self._records.unwrapped(data) if self._transforms else data

    def loadBlob(self, oid: bytes, serial: bytes) -> str:
        return str(self._storage.loadBlob(oid, serial))

    def openCommittedBlobFile(self, oid: bytes, serial: bytes, blob: Any = None) -> IO[bytes]:
        found: IO[bytes] = self._storage.openCommittedBlobFile(oid, serial, blob)
        return found

    def temporaryDirectory(self) -> str:
        return str(self._storage.temporaryDirectory())

    # --- snapshots ---

    @in_terms_of_zodb
    def poll_invalidations(self) -> list[bytes] | None:
        with self._lock:
            self._waits = False
            self._advance()
            missed, self._missed = self._missed, set()
        self._moved()
        return list(missed) if missed is not None else None

    def _advance(self) -> None:
        self._prefetched.clear()
        changed = self.view.advance()
        if changed is None:
            self._missed = None
        elif self._missed is not None:
            self._missed |= changed

    def sync(self, force: bool = True) -> None:
        """Nothing: `poll_invalidations` sees all there is."""

    def afterCompletion(self) -> None:
        """Until it is polled again, this instance may be moved on."""
        self._waits = True

    def move_on(self) -> None:
        """Show what is newest, if nobody uses this instance. Raises StorageError."""
        with self._lock:
            if self._waits:
                self._advance()

    def _stay(self) -> None:
        """It is used between transactions: not to be moved on any more."""
        with self._lock:
            self._waits = False

    def new_instance(self) -> Instance:
        found: Instance = self._storage.new_instance()
        return found

    def release(self) -> None:
        self._transactions.close()
        self.view.close()

    close = release

    def registerDB(self, wrapper: Any) -> None:  # noqa: ARG002
        """A wrapper stands around this instance: it transforms records itself."""
        self._transforms = False

    # --- writing ---

    @in_terms_of_zodb
    def new_oid(self) -> bytes:
        return self._store.new_oid()

    @in_terms_of_zodb
    def tpc_begin(self, transaction: Any, tid: bytes | None = None, status: str = " ") -> None:  # noqa: ARG002
        self._transactions.begin(transaction, tid)

    @in_terms_of_zodb
    def store(self, oid: bytes, serial: bytes | None, data: bytes, version: str, transaction: Any) -> None:  # noqa: ARG002
        self._transactions.store(
            transaction, oid, serial, self._records.wrapped(data) if self._transforms else data
        )

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
        wrapped = self._records.wrapped(data) if self._transforms else data
        self._transactions.store_blob(transaction, oid, serial, wrapped, blobfilename)

    @in_terms_of_zodb
    def checkCurrentSerialInTransaction(self, oid: bytes, serial: bytes, transaction: Any) -> None:
        self._transactions.check_current(transaction, oid, serial)

    @in_terms_of_zodb
    def undo(self, transaction_id: bytes, transaction: Any) -> tuple[bytes, list[bytes]]:
        """As the storage's."""
        return NO_TID, self._transactions.undo(transaction, transaction_id)

    @in_terms_of_zodb
    def tpc_vote(self, transaction: Any) -> list[bytes]:
        return self._transactions.vote(transaction)

    @in_terms_of_zodb
    def tpc_finish(self, transaction: Any, func: Callable[[bytes], object] | None = None) -> bytes:
        tid = self._transactions.finish(transaction) or self._store.last_tid()
        if func is not None:
            func(tid)
        return tid

    @in_terms_of_zodb
    def tpc_abort(self, transaction: Any) -> None:
        self._transactions.abort(transaction)


class Instances:
    """The instances of a storage that are in use. May be used by any thread."""

    def __init__(self, storage: Any, store: DirectoryStore, records: Records, resolver: Resolver) -> None:
        self._arguments = (storage, store, records, resolver)
        self._all: weakref.WeakSet[Instance] = weakref.WeakSet()
        self._lock = Lock()  # guards the set
        self._leaked: SimpleQueue[View] = SimpleQueue()  # a finalizer may take no lock
        self._refreshed = time.monotonic()
        self.were_made = False
        """Whether there ever was one."""

    @in_terms_of_zodb
    def new(self) -> Instance:
        """One more."""
        self.were_made = True
        instance = Instance(*self._arguments, self._refresh_sometimes)
        weakref.finalize(instance, self._leaked.put, instance.view).atexit = False
        with self._lock:
            self._all.add(instance)
        return instance

    def _refresh_sometimes(self) -> None:
        if time.monotonic() - self._refreshed >= REFRESH_AGE:
            self.refresh()

    def refresh(self) -> None:
        """Move on the instances that wait, and let go of what connections have left that were dropped."""
        self._refreshed = time.monotonic()
        for view in self._let_go():
            view.close()
        for instance in self._known():
            try:
                instance.move_on()
            except ObjstoreError:
                logger.exception("an instance that waits could not be moved on")

    def _let_go(self) -> Iterator[View]:
        while True:
            try:
                yield self._leaked.get_nowait()
            except Empty:
                return

    def _known(self) -> list[Instance]:
        with self._lock:
            return list(self._all)

    def close(self) -> None:
        """Release all of them."""
        for instance in self._known():
            instance.release()
        for view in self._let_go():
            view.close()
