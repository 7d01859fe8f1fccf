"""The database: connections over a store, and what one does with a store as a whole."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import transaction
from persistent.mapping import PersistentMapping

from objstore.contracts import History, PackReport, Progress, Store, View
from objstore.errors import (
    ClosedError,
    ConflictError,
    ForkedConnectionError,
    HistoryMissingError,
    POSKeyError,
    ReadOnlyError,
    SnapshotTooOldError,
    UsageError,
)
from objstore.ids import NO_TID, ROOT, Oid, Tid, number, tid_at, tid_from, tid_moment, tid_seconds
from objstore.objects.blocks import block_of, current_manager
from objstore.objects.connection import Connection
from objstore.objects.options import DatabaseOptions
from objstore.objects.pool import ConnectionPool
from objstore.objects.serialize import RecordPickler
from objstore.objects.shared import DATABASE_NAME, Shared
from objstore.objects.undoing import Entry, Undo, has_all, history_of, tid_of, undo_log
from objstore.revisions import Details
from objstore.upkeep.pacing import Pace

logger = logging.getLogger(__name__)

Moment = datetime | bytes | str
"""A time: a datetime (naive ones are UTC), a tid of 8 bytes, or its hexadecimal digits."""

T = TypeVar("T")
_EARLIEST = -2_208_988_800.0
"""1900, in seconds since 1970: tids cannot say what was before."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 1.0


def _uniform(low: float, high: float) -> float:
    """A random number between two. The module `random` knows more distributions than a pause needs."""
    return low + (high - low) * int.from_bytes(os.urandom(4)) / 2**32


class DB:
    """A database over a store. May be used by any thread; a connection by one at a time.

    `objstore.open` and `objstore.memory` make one. It owns its `store`, and closes it when it is closed.
    """

    database_name = DATABASE_NAME

    def __init__(
        self,
        store: Store,
        options: DatabaseOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        reopen: Callable[[], Store] | None = None,
    ) -> None:
        """Make a database, and its root if the store is empty. `clock` gives seconds since 1970.

        `reopen` opens the store once more: a child that was forked from this process does that when it needs it.
        """
        self._options = options or DatabaseOptions()
        self._clock = clock
        self._reopen = reopen
        self._begin(store)
        if not store.read_only:
            self._make_root()

    def _begin(self, store: Store) -> None:
        self._pid = os.getpid()
        self._store = store
        self._shared_parts = Shared(self, store, self._options, self._clock)
        self._connections = ConnectionPool(self._connection, store.view, self._options.pool_size)
        self._shared_parts.after_completion = self._connections.refresh

    def _follow_fork(self) -> None:
        """In a forked child: nothing of the parent's is touched, and the store is opened anew."""
        if self._pid != os.getpid() and not self._shared_parts.commits.closed:
            if self._reopen is None:
                raise ForkedConnectionError(f"the database {self._store.name}")
            self._begin(self._reopen())

    @property
    def store(self) -> Store:
        """The store: in a forked child, the child's own."""
        self._follow_fork()
        return self._store

    @property
    def _shared(self) -> Shared:
        self._follow_fork()
        return self._shared_parts

    @property
    def _pool(self) -> ConnectionPool:
        self._follow_fork()
        return self._connections

    def _make_root(self) -> None:
        """Make the root unless it is there, or another process makes it at the same moment."""
        made = False
        while not made:
            try:
                self._try_to_make_root()
                made = True
            except (ConflictError, SnapshotTooOldError):  # it has made it, and is about to sync
                time.sleep(_FIRST_PAUSE)

    def _try_to_make_root(self) -> None:
        view = self.store.view()
        try:
            view.load(ROOT)
        except POSKeyError:
            details = Details(description="initial database creation")
            pending = self.store.begin(details, view, self._shared.resolver)
            try:
                state = PersistentMapping().__getstate__()
                data = RecordPickler(_no_reference).dump(PersistentMapping, state)
                pending.store(ROOT, NO_TID, data, b"")
                pending.vote()
                pending.finish()
            finally:
                pending.abort()
        finally:
            view.close()

    # --- connections ---

    def open(
        self, transaction_manager: Any = None, at: Moment | None = None, before: Moment | None = None
    ) -> Connection:
        """A connection that takes part in a manager's transactions: the thread's, unless one is given.

        `at` or `before` open the past, read-only: as it was at that moment, or just before it. Raises
        HistoryMissingError where the past is not kept, UsageError for a moment to come or before there was a
        root, ClosedError.
        """
        self._shared.commits.require_open()
        if at is not None or before is not None:
            connection = self._open_past(self._upto(at, before))
        else:
            connection = self._pool.take()
        try:
            connection.open_with(transaction_manager)
        except BaseException:
            self._pool.drop(connection)
            raise
        return connection

    def _connection(self, view: View) -> Connection:
        connection = Connection(self._shared, view, self._pool.put_back)
        connection.set_cache_size(self._options.cache_size, self._options.cache_size_bytes)
        return connection

    def _open_past(self, upto: Tid) -> Connection:
        view = self.store.view(upto)
        try:
            view.load(ROOT)
        except BaseException as error:
            view.close()
            if isinstance(error, POSKeyError):
                raise UsageError(f"there was no database yet at {tid_moment(upto).isoformat()}") from error
            raise
        connection = Connection(self._shared, view, self._pool.drop, historical=True)
        self._pool.adopt(connection, view)
        return connection

    def _upto(self, at: Moment | None, before: Moment | None) -> Tid:
        """The last tid that a connection to the past is to see."""
        if at is not None and before is not None:
            raise UsageError("a connection is opened at a moment or before one, not both")
        tid = _tid(at if at is not None else before)
        if before is not None:
            tid = tid_from(max(0, number(tid) - 1))
        last = self.store.last_tid()
        if tid <= last:
            return tid
        now = datetime.fromtimestamp(self._shared.clock(), UTC)
        if tid > tid_at(now):
            raise UsageError(f"the time of tid {tid.hex()} is still to come; it is {now.isoformat()}")
        return last

    @contextmanager
    def transaction(self, note: str | None = None) -> Iterator[Connection]:
        """A connection with a transaction of its own: committed at the end, aborted on an exception."""
        manager = transaction.TransactionManager()
        connection = self.open(manager)
        try:
            with manager as current, block_of(connection):
                if note is not None:
                    current.note(note)
                yield connection
        finally:
            _close(connection, manager)

    def run(
        self,
        function: Callable[[Connection], T],
        retries: int = 10,
        *,
        note: str | None = None,
        sleep: Callable[[float], object] = time.sleep,
        uniform: Callable[[float, float], float] = _uniform,
    ) -> T:
        """Call a function with a connection in a transaction, commit, and return what it returned.

        Transient errors, such as conflicts, are answered by up to `retries` further attempts, after pauses
        that grow from 5 ms to 1 s and are jittered. The function must therefore bear to be called again.
        """
        if retries < 0:
            raise UsageError(f"retries is 0 or more, not {retries}")
        manager = transaction.TransactionManager()
        connection = self.open(manager)
        try:
            attempt = 0
            while True:
                attempt += 1
                current = manager.begin()
                if note is not None:
                    current.note(note)
                try:
                    with block_of(connection):
                        value = function(connection)
                    manager.commit()
                except Exception as error:
                    if attempt > retries or not manager.get().isRetryableError(error):
                        raise
                    logger.debug("attempt %d failed, and is made again: %s", attempt, error)
                else:
                    return value
                manager.abort()
                sleep(uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)))
        finally:
            _close(connection, manager)

    @contextmanager
    def savepoint(self, connection: Connection | None = None) -> Iterator[Any]:
        """A transaction within a transaction: on an exception what was changed inside is taken back.

        The exception goes on, and the transaction too, for whoever catches it. The transaction is that of
        `connection`; without one, of the innermost block of `transaction` or `run` that this is called in; outside
        of these, of the thread's manager. Gives the savepoint, which may be rolled back by hand as well. They
        nest. Nothing is committed by it. Raises UsageError for a connection of another database, ClosedError, and
        what writing the changes to a savepoint raises.
        """
        self._shared.commits.require_open()
        if connection is not None and connection.transaction_manager is None:
            raise ClosedError("the connection")
        if connection is not None and connection.db() is not self:
            raise UsageError(f"the connection belongs to another database than {self._store.name}")
        manager = current_manager(self) if connection is None else connection.transaction_manager
        moment = manager.savepoint()
        try:
            yield moment
        except BaseException:
            if moment.valid:  # else the transaction was ended inside, or rolled back further
                moment.rollback()
            raise

    # --- the past ---

    def supportsUndo(self) -> bool:
        """Whether the store keeps what undo needs."""
        return self.store.history_mode is History.FULL

    def undo(self, id: str | bytes, txn: Any = None) -> None:
        """Undo a transaction when `txn` commits: by default that of the block of `transaction` or `run` that this
        is called in, else the thread's.

        `id` is the `id` of an entry of `undoLog`. Changes made since to the same objects are resolved, or
        the commit fails with UndoError. Raises HistoryMissingError where the store keeps no history.
        """
        self.undoMultiple([id], txn)

    def undoMultiple(self, ids: Iterable[str | bytes], txn: Any = None) -> None:
        """Undo several transactions at once, newest first."""
        self._shared.commits.require_open()
        if not self.supportsUndo():
            raise HistoryMissingError("a Minimal store keeps no history, so nothing can be undone")
        if self.store.read_only:
            raise ReadOnlyError(self.store.name)
        tids = [tid_of(each) for each in ([ids] if isinstance(ids, str | bytes) else ids)]
        (txn if txn is not None else current_manager(self).get()).join(Undo(self._shared, tids))

    def undoLog(
        self, first: int = 0, last: int = -20, filter: Callable[[Entry], bool] | None = None
    ) -> list[Entry]:
        """The transactions that may be undone, newest first: dicts with `id` (for `undo`), `tid`, `time` (in
        seconds since 1970), `user_name`, `description`, and what their extension says.

        From number `first` to before number `last`, or `-last` of them. A Minimal store has none.
        """
        self._shared.commits.require_open()
        return undo_log(self.store, first, last, filter)

    def undoInfo(
        self, first: int = 0, last: int = -20, specification: Mapping[str, Any] | None = None
    ) -> list[Entry]:
        """As `undoLog`, of those whose entries have the values of `specification`."""
        return self.undoLog(first, last, has_all(specification) if specification else None)

    def history(self, oid: Oid, size: int = 1) -> list[Entry]:
        """The newest `size` revisions of an object, newest first: dicts with `tid`, `time`, `size` in bytes,
        `previous` (a tid or None), `deleted`, and what is known of their transactions. Raises POSKeyError.
        """
        self._shared.commits.require_open()
        return history_of(self.store, oid, size)

    def lastTransaction(self) -> Tid:
        """The tid of the newest transaction."""
        self._shared.commits.require_open()
        return self.store.last_tid()

    # --- the store as a whole ---

    def pack(
        self,
        t: float | Moment | None = None,
        days: float = 0,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        throttle: float = 1.0,
    ) -> PackReport:
        """Drop the revisions that were superseded `days` before `t`, and the objects nothing refers to.

        `t` is now, or a moment, or seconds since 1970. `dry_run` only tells what would go. `throttle` is the
        share of the time that it works, the rest of which it sleeps. Raises UsageError where a pack runs
        already, ReadOnlyError, CorruptionError, StorageFullError, ClosedError.
        """
        self._shared.commits.require_open()
        if days < 0:
            raise UsageError(f"days is 0 or more, not {days}")
        self._pool.refresh(now=True)
        return self.store.pack(self._pack_tid(t, days), dry_run=dry_run, progress=Pace(throttle, progress))

    def _pack_tid(self, t: float | Moment | None, days: float) -> Tid:
        if t is None:
            t = self._shared.clock()
        if not isinstance(t, int | float):
            if not days:
                return _tid(t)
            t = tid_seconds(_tid(t))
        seconds = t - days * 86400
        return tid_at(datetime.fromtimestamp(seconds, UTC)) if seconds > _EARLIEST else NO_TID

    def statistics(self) -> dict[str, int | float | str]:
        """Facts and counters of the store and of the connections. The names are in `docs/reference/api.md`."""
        self._shared.commits.require_open()
        used, waiting = self._pool.used(), self._pool.waiting()
        return {
            **self.store.statistics(),
            "connections_open": len(used),
            "connections_waiting": len(waiting),
            "cached_objects": sum(each.cached_objects for each in (*used, *waiting)),
            "cached_bytes": sum(each.cached_bytes for each in (*used, *waiting)),
            "pool_size": self._pool.size,
        }

    def cacheMinimize(self) -> None:
        """Drop the states of all unchanged objects, of all connections."""
        for connection in self._pool.all():
            connection.cacheMinimize()

    def getCacheSize(self) -> int:
        """How many objects each connection keeps in memory between transactions, about."""
        return self._options.cache_size

    def setCacheSize(self, size: int) -> None:
        """Change that, for all connections."""
        self._resize(self._options._replace(cache_size=size))

    def getCacheSizeBytes(self) -> int:
        """How many bytes of records each connection keeps in memory between transactions, about; 0: any."""
        return self._options.cache_size_bytes

    def setCacheSizeBytes(self, size: int) -> None:
        """Change that, for all connections."""
        self._resize(self._options._replace(cache_size_bytes=size))

    def _resize(self, options: DatabaseOptions) -> None:
        self._options = options
        for connection in self._pool.all():
            connection.set_cache_size(options.cache_size, options.cache_size_bytes)

    def getPoolSize(self) -> int:
        """How many closed connections are kept, and past how many open ones a warning is logged."""
        return self._pool.size

    def setPoolSize(self, size: int) -> None:
        """Change that."""
        self._pool.size = size

    def getName(self) -> str:
        """The name of the store: its path."""
        return self.store.name

    def isReadOnly(self) -> bool:
        """Whether nothing can be changed."""
        return self.store.read_only

    def close(self) -> None:
        """Close the database and its store. Closing twice is allowed.

        Commits in progress are waited for. Uncommitted changes of this thread's transaction are given up;
        those of other threads are too, and their commits raise ClosedError. Raises UsageError in the middle
        of a commit of this thread, StorageError where the store could not be written to the end.
        """
        if self._pid != os.getpid():  # a child leaves to its parent what is the parent's
            self._shared_parts.commits.closed = True
            return
        if not self._shared.commits.close():
            return
        mine = transaction.manager.manager
        if any(each.transaction_manager is mine and each.joined for each in self._pool.used()):
            mine.abort()
        self._pool.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<objstore database {self.store.name}>"


def _close(connection: Connection, manager: Any) -> None:
    """End what a transaction manager of ours has begun, whatever came of it, and close its connection."""
    manager.abort()
    connection.close()


def _tid(moment: Moment | None) -> Tid:
    """A moment as a tid. Raises UsageError."""
    if not isinstance(moment, datetime):
        return tid_of(moment if moment is not None else b"")
    try:
        return tid_at(moment)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{moment} is no time of a transaction: {error}") from error


def _no_reference(obj: object) -> None:
    """The root refers to nothing when it is made."""
