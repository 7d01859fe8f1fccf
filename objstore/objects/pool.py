"""The connections of a database: those in use, and those that wait to be used again, with their caches.

A waiting connection keeps its cache, and therefore its snapshot: what is outdated can only be told from the
snapshot on. A snapshot that stands still would hold back the flusher and packs, so waiting connections are
moved on now and then, when another transaction ends or another connection is opened.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic
from weakref import WeakSet, finalize

from objstore.contracts import View
from objstore.errors import ObjstoreError
from objstore.objects.connection import Connection

logger = logging.getLogger(__name__)

REFRESH_AGE = 1.0
"""Seconds for which a waiting connection may keep its snapshot while transactions end."""


class ConnectionPool:
    """Connections, made by `make` from a view. May be used by any thread."""

    def __init__(
        self,
        make: Callable[[View], Connection],
        view: Callable[[], View],
        size: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.size = size
        self._make = make
        self._view = view
        self._clock = clock
        self._lock = Lock()  # guards all below, and the connections that wait
        self._waiting: list[Connection] = []  # the one used last at the end
        self._used: WeakSet[Connection] = WeakSet()
        self._views: dict[int, tuple[View, finalize[..., Connection]]] = {}
        self._leaked: deque[int] = deque()  # filled by garbage collection, at any moment; append is atomic
        self._refreshed = clock()

    def take(self) -> Connection:
        """A connection that nobody uses: the one that was used last, or a new one."""
        self.refresh()
        with self._lock:
            connection = self._waiting.pop() if self._waiting else None
        if connection is None:
            view = self._view()
            connection = self._make(view)
            self._watch(connection, view)
        with self._lock:
            self._used.add(connection)
            count = len(self._used)
        if count > self.size:
            level = logging.CRITICAL if count > 2 * self.size else logging.WARNING
            logger.log(level, "%d connections are open; pool_size is %d", count, self.size)
        return connection

    def adopt(self, connection: Connection, view: View) -> None:
        """Count a connection that is not to be used again, until it is dropped."""
        self._watch(connection, view)
        with self._lock:
            self._used.add(connection)

    def _watch(self, connection: Connection, view: View) -> None:
        key = id(view)
        watch = finalize(connection, self._leaked.append, key)
        watch.atexit = False
        with self._lock:
            self._views[key] = (view, watch)

    def put_back(self, connection: Connection) -> None:
        """A connection was closed: keep it if there is room, and let go of the one that waits longest."""
        with self._lock:
            self._used.discard(connection)
            self._waiting.append(connection)
            surplus = self._waiting[: max(0, len(self._waiting) - self.size)]
            del self._waiting[: len(surplus)]
        for each in surplus:
            self.drop(each)

    def drop(self, connection: Connection) -> None:
        """Let go of a connection and its snapshot."""
        key = id(connection.view)
        with self._lock:
            self._used.discard(connection)
            view, watch = self._views.pop(key, (None, None))
        if watch is not None:
            watch.detach()
        if view is not None:
            view.close()

    def refresh(self, *, now: bool = False) -> None:
        """Move the waiting connections on if that was not done for a while, or `now`."""
        if self._leaked:
            self._close_leaked()
        if not now and self._clock() - self._refreshed < REFRESH_AGE:  # asked without the lock: it is not urgent
            return
        with self._lock:
            moment = self._clock()
            if not now and moment - self._refreshed < REFRESH_AGE:
                return
            self._refreshed = moment
            unfit = [each for each in self._waiting if not _refreshed(each)]
            for each in unfit:
                self._waiting.remove(each)
        for each in unfit:
            self.drop(each)

    def _close_leaked(self) -> None:
        """Let go of the snapshots of connections that were dropped without being closed."""
        while True:
            try:
                key = self._leaked.popleft()
            except IndexError:
                return
            with self._lock:
                view, _ = self._views.pop(key, (None, None))
            if view is not None:
                view.close()
                logger.warning("a connection was dropped without being closed")

    def used(self) -> list[Connection]:
        """The connections that are open."""
        with self._lock:
            return list(self._used)

    def waiting(self) -> list[Connection]:
        """The connections that wait to be used again."""
        with self._lock:
            return list(self._waiting)

    def all(self) -> list[Connection]:
        """Both."""
        with self._lock:
            return [*self._waiting, *self._used]

    def close(self) -> None:
        """Let go of the connections that wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for each in waiting:
            self.drop(each)
        self._close_leaked()


def _refreshed(connection: Connection) -> bool:
    try:
        connection.refresh()
    except ObjstoreError:
        logger.exception("a connection in the pool could not be moved on, so it is dropped")
        return False
    return True
