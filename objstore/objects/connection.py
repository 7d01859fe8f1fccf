"""A connection: a transaction's view of the objects of a database.

It hands out persistent objects, loads their states as they are looked at, notes what is changed, and takes
part in the commits of its transaction manager. All it shows during a transaction is one snapshot; the
snapshot moves on where transactions begin and end, and what others have changed leaves the cache in the
same moment. The interface is that of ZODB's Connection.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase
from threading import Thread
from typing import IO, Any

import transaction
from persistent import Persistent, PickleCache

from objstore.contracts import BlobFiles, PendingTransaction, View
from objstore.errors import (
    ClosedError,
    ConflictError,
    ForkedConnectionError,
    POSKeyError,
    ReadOnlyError,
    SerializationError,
    UsageError,
)
from objstore.ids import NO_TID, ROOT, Oid, Tid
from objstore.objects.blobs import blob_files_of
from objstore.objects.broken import name_of
from objstore.objects.changes import Changes, Savepoint
from objstore.objects.details import details_of
from objstore.objects.exchange import Importer, export_file
from objstore.objects.prefetching import Prefetched, oids_in
from objstore.objects.reading import ObjectReader
from objstore.objects.referrers import tell_referrer
from objstore.objects.root import RootConvenience
from objstore.objects.serialize import LostState
from objstore.objects.shared import DATABASE_NAME, Shared
from objstore.objects.threads import require_thread, thread_to_keep

logger = logging.getLogger(__name__)


class Connection:
    """Made by `DB.open`. Used by one thread at a time.

    `transaction_manager` is the manager whose transactions it takes part in, None while it is closed;
    `opened` the time at which it was opened, in seconds since 1970, None while it is closed.
    """

    database_name = DATABASE_NAME

    def __init__(
        self, shared: Shared, view: View, released: Callable[[Connection], None], *, historical: bool = False
    ) -> None:
        self._shared = shared
        self._commits = shared.commits
        self._sort_key = f"{shared.store.name}:{id(self)}"
        self._read_only = historical or shared.store.read_only
        self._view = view
        self._released = released
        self._historical = historical
        self._cache = PickleCache(self, shared.options.cache_size, shared.options.cache_size_bytes)
        self._changes = Changes(self, self._cache, shared.options.savepoint_memory, self._discard_blob)
        self.named = self._changes.named
        self._reader = ObjectReader(self, self._cache, shared.finder)
        self._prefetched = Prefetched()
        self._callbacks: list[Callable[[], object]] = []
        self._joined, self._wrote = False, 0
        self._pending: PendingTransaction | None = None
        self._committing = False
        self.transaction_manager: Any = None
        self.opened: float | None = None
        self._thread: Thread | None = None

    # --- objects ---

    @property
    def root(self) -> RootConvenience:
        """The root: `root()` is the mapping, `root.name` an item of it."""
        return RootConvenience(self[ROOT])

    def get(self, oid: Oid) -> Persistent:
        """The object with this oid; its state is loaded when it is looked at.

        Raises POSKeyError, which names an object that refers to it where one is in the cache;
        ClassNotAllowedError, SerializationError, ClosedError.
        """
        try:
            return self[oid]
        except POSKeyError as error:
            tell_referrer(error, self._cache, self._load)
            raise

    def __getitem__(self, oid: Oid) -> Persistent:
        """As `get`, without searching for who refers to a missing object."""
        self._require_open()
        if not isinstance(oid, bytes) or len(oid) != 8:
            raise TypeError(f"an oid is 8 bytes, not {oid!r}")
        known = self.cached(oid)
        if known is not None:
            return known
        data, _ = self._load(oid)
        ghost = self._reader.ghost(oid, data)
        known = self.cached(oid)  # its arguments may have led back to it
        if known is not None:
            return known
        self.new_ghost(oid, ghost)
        return ghost

    def cached(self, oid: Oid) -> Persistent | None:
        """The object with this oid if it is in memory, else None."""
        known = self._cache.get(oid)
        return known if known is not None else self.named.get(oid)

    def new_ghost(self, oid: Oid, ghost: Persistent) -> None:
        """Adopt an object that was made without its state."""
        self._cache.new_ghost(oid, ghost)

    def add(self, obj: Persistent) -> None:
        """Give a new object an oid; it is stored when the transaction commits.

        Objects that are reachable from stored ones need not be added. Raises TypeError where it is not
        persistent, SerializationError where it belongs to another connection, ReadOnlyError, ClosedError.
        """
        self._require_open()
        if not isinstance(obj, Persistent):
            raise TypeError(f"only persistent objects have an oid, not {obj!r}")
        if isinstance(obj._p_jar, LostState):
            obj._p_jar.setstate(obj)
        if obj._p_jar is None:
            self._require_writable()
            self._join()
            self.adopt(obj)
        elif obj._p_jar is not self:
            raise SerializationError("it belongs to another connection", obj._p_oid, name_of(type(obj)))

    def adopt(self, obj: Persistent) -> Oid:
        """Give a new object its oid, within a transaction that this connection has joined."""
        oid = self._shared.store.new_oid()
        self._changes.name(obj, oid)
        return oid

    def oldstate(self, obj: Persistent, tid: Tid) -> Any:
        """The state that the transaction `tid` gave to an object. Raises POSKeyError."""
        self._require_open()
        oid = Oid(obj._p_oid)
        data = self._shared.store.revision(oid, tid).data
        if data is None:
            raise POSKeyError(oid, tid=tid)
        return self._reader.state(oid, data)

    def prefetch(self, *args: Any) -> None:
        """Read ahead what will be looked at soon: many objects in one pass, in the order of their oids.

        Takes oids, persistent objects, and iterables of either. Nothing is loaded by it but records, which
        are kept until their objects are, or until the transaction ends. What has its state already, or is
        not there, is passed over. Raises ClosedError, SnapshotTooOldError, CorruptionError, TypeError.
        """
        self._require_open()
        known = self._cache.get
        wanted = set(oids_in(args))
        loaded = {oid for oid in wanted if (obj := known(oid)) is not None and obj._p_changed is not None}
        self._prefetched.read(self._view, wanted - loaded)

    def readCurrent(self, obj: Persistent) -> None:
        """Make the commit fail with ReadConflictError if another transaction has changed this object.

        That is for objects that are relied on but not changed; it counts if anything is changed.
        """
        obj._p_activate()
        if obj._p_jar is self and obj._p_serial != NO_TID:
            self._changes.read_current[Oid(obj._p_oid)] = Tid(obj._p_serial)

    # --- what persistent objects ask of their jar ---

    def setstate(self, obj: Persistent) -> None:
        """Load the state of a ghost. Raises what `get` raises, and SnapshotTooOldError, CorruptionError."""
        if self._commits.closed or self.opened is None:
            self._require_open()
        oid: Oid = obj._p_oid
        try:
            data, serial = self._load(oid)
            self._reader.set_state(obj, data)
        except POSKeyError as error:
            tell_referrer(error, self._cache, self._load)
            raise
        obj._p_serial = serial
        if self._prefetched:
            self._prefetched.take(oid)
        size = len(data)
        self._cache.update_object_size_estimation(oid, size)
        obj._p_estimated_size = size

    def register(self, obj: Persistent) -> None:
        """An object is about to change, or has. Raises ReadOnlyError, ClosedError.

        It is noted first and refused then: some classes change their state before they say so, and it has
        to be dropped when the transaction ends.
        """
        self._changes.register(obj)
        if self._commits.closed or self.opened is None:
            self._require_open()
        if not self._joined:
            self._join()
        if self._read_only:
            self._require_writable()

    def _load(self, oid: Oid) -> tuple[bytes, Tid]:
        savepoints = self._changes.savepoints
        written = savepoints.load(oid) if savepoints is not None else None
        if written is not None:
            return written.data, written.serial
        return (self._prefetched.get(oid) if self._prefetched else None) or self._view.load(oid)

    # --- the connection itself ---

    def db(self) -> Any:
        """The `DB` that made it."""
        return self._shared.db

    def isReadOnly(self) -> bool:
        """Whether nothing can be changed through it."""
        return self._read_only

    def sync(self) -> None:
        """Begin a new transaction, giving up the changes of the present one, and see what is newest."""
        self._require_open()
        self.transaction_manager.begin()

    def cacheMinimize(self) -> None:
        """Drop the states of all objects that were not changed, and what was read ahead."""
        self._prefetched.clear()
        self._cache.minimize()

    def cacheGC(self) -> None:
        """Drop the states of the objects that were not used for longest, down to the size of the cache."""
        self._cache.incrgc()

    def onCloseCallback(self, function: Callable[[], object]) -> None:
        """Have a function called when this connection is closed the next time. What it raises is logged."""
        self._callbacks.append(function)

    def open_with(self, transaction_manager: Any) -> None:
        """Begin to take part in a manager's transactions, None for the thread's. `DB.open` calls this."""
        manager = transaction.manager.manager if transaction_manager is None else transaction_manager
        self.transaction_manager = manager
        self.opened, self._thread = self._shared.clock(), thread_to_keep(self._shared.options)
        try:
            self._advance()
            manager.registerSynch(self)
        except BaseException:
            self.opened = self.transaction_manager = None
            raise
        self._cache.incrgc()

    def close(self) -> None:
        """Give the connection back. Closing twice is allowed.

        Raises UsageError where it has changes that were neither committed nor aborted.
        """
        if self.opened is None:
            return
        if self._joined and not self._commits.closed:
            raise UsageError("the connection takes part in a transaction; commit or abort before closing it")
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("a callback failed while a connection was closed")
        self._changes.abort()
        self._prefetched.clear()
        manager, self.transaction_manager, self.opened = self.transaction_manager, None, None
        with suppress(KeyError):  # the manager was told to forget all it knew
            manager.unregisterSynch(self)
        self._cache.incrgc()
        self._released(self)

    @property
    def view(self) -> View:
        """Its snapshot of the store."""
        return self._view

    @property
    def joined(self) -> bool:
        """Whether it takes part in a transaction, because something was changed."""
        return self._joined

    @property
    def cached_objects(self) -> int:
        """How many objects have their state in memory."""
        return int(self._cache.cache_non_ghost_count)

    @property
    def cached_bytes(self) -> int:
        """How many bytes their records have, about."""
        return int(self._cache.total_estimated_size)

    def set_cache_size(self, objects: int, size: int) -> None:
        """How many objects, and bytes of records, are kept in memory between transactions."""
        self._cache.cache_size = objects
        self._cache.cache_size_bytes = size

    def refresh(self) -> None:
        """Move on to what is newest, between transactions or while nobody has the connection open."""
        self._advance()

    def _require_open(self) -> None:
        if os.getpid() != self._shared.pid:  # also where all that is asked for is in memory
            raise ForkedConnectionError("a connection")
        self._commits.require_open()
        if self.opened is None:
            raise ClosedError("the connection")
        require_thread(self._thread)

    def _require_writable(self) -> None:
        if self._read_only:
            if self._historical:
                raise ReadOnlyError("this connection to the past", "what was cannot be changed")
            raise ReadOnlyError(self._shared.store.name)

    def __repr__(self) -> str:
        state = "closed" if self.opened is None else f"at {self._view.snapshot.hex()}"
        return f"<objstore connection to {self._shared.store.name}, {state}>"

    # --- what transaction managers tell ---

    def beforeCompletion(self, _transaction: object) -> None:
        """A transaction is about to end: nothing to do."""

    def newTransaction(self, _transaction: object) -> None:
        """A transaction begins: see what is newest."""
        self._between_transactions()

    def afterCompletion(self, _transaction: object) -> None:
        """A transaction has ended: see what is newest, also where none is begun explicitly."""
        self._between_transactions()
        self._cache.incrgc()
        self._shared.after_completion()

    def _between_transactions(self) -> None:
        if self.opened is not None and not self._commits.closed and not self._joined:
            self._advance()

    def _advance(self) -> None:
        """Move the snapshot on and drop the states that it has outdated: all of them, should that fail."""
        self._changes.begin()
        self._prefetched.clear()
        try:
            changed = self._view.advance()
            if changed is None:
                self._forget()
            elif changed:
                self._cache.invalidate(list(changed))  # a list, because the cache empties what it is given
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Drop the states of all objects."""
        self._cache.invalidate(list(self._cache.cache_data))

    # --- the data manager of two-phase commits ---

    def _join(self) -> None:
        if not self._joined:
            self.transaction_manager.get().join(self)
            self._joined = True

    def sortKey(self) -> str:
        """Orders the data managers of a transaction."""
        return self._sort_key

    def tpc_begin(self, transaction: Any) -> None:
        """Begin to commit. Raises ReadOnlyError, ClosedError, UsageError."""
        if self._changes:
            self._require_writable()
        self._committing = True  # first: a signal may come in between
        self._commits.begin(transaction, self)

    def commit(self, transaction: Any) -> None:
        """Write the changes. Raises SerializationError, StorageError."""
        self._wrote = 0
        if self._changes:
            store = self._shared.store
            self._pending = store.begin(details_of(transaction), self._view, self._shared.resolver)
            self._wrote = self._changes.write_all(self._pending)

    def tpc_vote(self, _transaction: object) -> None:
        """Make them ready to commit. Raises ConflictError and its kin, StorageError."""
        if self._pending is None:
            return
        try:
            self._changes.resolved(self._pending.vote())
        except ConflictError as error:
            obj = self._cache.get(error.oid)
            if error.class_name is None and obj is not None:
                error.class_name = name_of(type(obj))
            raise

    def tpc_finish(self, _transaction: object) -> None:
        """Commit them."""
        if self._pending is not None and self._wrote:
            self._changes.committed(self._pending.finish())
            self._end(unchanged=True)
        else:
            self._end()

    def tpc_abort(self, _transaction: object) -> None:
        """Give up the changes of a commit that failed."""
        self._end()

    def abort(self, _transaction: object) -> None:
        """Give up the changes."""
        self._end()

    def _end(self, *, unchanged: bool = False) -> None:
        """A commit, or a transaction, has ended. What is not committed is given up, if anything is."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.abort()  # which does nothing after a finish
        finally:
            self._joined = False
            if self._committing:
                self._commits.end(self)
                self._committing = False
            if not unchanged:
                self._changes.abort()

    def savepoint(self) -> Savepoint:
        """A moment to roll back to, within the transaction. Called by `transaction.savepoint()`."""
        self._require_writable()
        mark = self._changes.savepoint()
        self._cache.incrgc()
        return Savepoint(self._changes, mark)

    # --- export and import ---

    def exportFile(self, oid: Oid, f: str | IO[bytes] | None = None) -> IO[bytes]:
        """Write an object and all that is reachable from it, in ZODB's export format.

        To an open file, to a path, or to a temporary file; the file is returned, open, at its end. Changes
        since the last commit or savepoint are not in it. Raises POSKeyError, OSError.
        """
        self._require_open()
        return export_file(self._load, self._open_blob, oid, f)

    def importFile(self, f: str | IO[bytes]) -> Persistent:
        """Take over the objects of an export, with new oids; the one that was exported.

        Refer to it from an object that is stored, then commit. A failed import changes nothing. Raises
        SerializationError, ReadOnlyError, OSError.
        """
        self._require_open()
        self._require_writable()
        if isinstance(f, str):
            with open(f, "rb") as file:
                return self.importFile(file)
        self._join()
        changes, importer = self._changes, Importer(self._shared.store.new_oid, self.blob_files)
        return changes.added(lambda: self[importer.read(f, changes.temporary(), changes.note_created)])

    # --- blobs ---

    def blob_files(self) -> BlobFiles:
        """Where the data of blobs are. Raises ClosedError, UsageError where the store keeps none."""
        self._require_open()
        return blob_files_of(self._shared.store)

    def saved_blob(self, oid: Oid) -> str | None:
        """The data that the last savepoint has of a blob; None where it has none."""
        self._require_open()
        savepoints = self._changes.savepoints
        return savepoints.blob(oid) if savepoints is not None else None

    def _open_blob(self, oid: Oid, serial: Tid) -> RawIOBase:
        """The data of a blob as of the last savepoint, to be exported."""
        files, saved = self.blob_files(), self.saved_blob(oid)
        return files.open(saved, "r") if saved is not None else files.open_committed(oid, serial)

    def _discard_blob(self, path: str) -> None:
        with suppress(UsageError):  # a closed store is swept when it is opened; a fork's files are its parent's
            blob_files_of(self._shared.store).discard(path)
