"""What the connections of a database share: its store, how classes are found, and who is committing."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Condition, Lock, get_ident
from typing import Any

from objstore.contracts import Store
from objstore.errors import ClosedError, UsageError
from objstore.objects.classes import ClassFinder
from objstore.objects.options import DatabaseOptions
from objstore.objects.resolve import ConflictResolver

DATABASE_NAME = "unnamed"
"""What ZODB calls a database that is not one of several."""


def _nothing() -> None:
    """Do nothing."""


class Shared:
    """The common ground of a database's connections. May be used by any thread."""

    def __init__(self, db: Any, store: Store, options: DatabaseOptions, clock: Callable[[], float]) -> None:
        self.db = db
        self.store = store
        self.options = options
        self.clock = clock
        self.pid = os.getpid()
        """The process that its connections belong to."""
        self.finder = ClassFinder(options.allowed_classes)
        self.resolver = ConflictResolver(self.finder, DATABASE_NAME)
        self.commits = Commits(f"the database {store.name}")
        self.after_completion: Callable[[], None] = _nothing
        """Called whenever a transaction of any connection has ended."""


class Commits:
    """The commits in progress. Closing waits for them, and lets no other begin."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = Lock()  # guards the two below, and `closed`; a leaf
        self._ended = Condition(self._lock)
        self._threads: dict[int, list[tuple[object, object]]] = {}  # who commits which transaction in a thread
        self.closed = False

    def require_open(self) -> None:
        """Raises ClosedError."""
        if self.closed:
            raise ClosedError(self._what)

    def begin(self, transaction: object, manager: object) -> None:
        """A data manager begins to commit; `end` is to be called, also where this raises.

        Only one of a database's data managers may take part in a transaction: the second would wait for the
        first to finish, in one thread. Raises UsageError for the second, ClosedError.
        """
        with self._lock:
            self.require_open()
            running = self._threads.get(get_ident(), [])
            if running and any(transaction is each for each, _ in running):
                raise UsageError(
                    f"two connections (or a connection and an undo) of {self._what} take part in one "
                    "transaction; give each its own transaction manager"
                )
            self._threads[get_ident()] = [*running, (transaction, manager)]

    def end(self, manager: object) -> None:
        """A data manager commits no more; nothing, if it did not. It may be another thread that says so."""
        with self._lock:
            for thread, running in list(self._threads.items()):
                others = [each for each in running if each[1] is not manager]
                if others:
                    self._threads[thread] = others
                else:
                    del self._threads[thread]
            if self.closed:
                self._ended.notify_all()

    def close(self) -> bool:
        """Let no commit begin any more, and wait for those in progress; False where it was closed already.

        Raises UsageError where this very thread is committing: it would wait for itself.
        """
        with self._lock:
            if get_ident() in self._threads:
                raise UsageError(f"{self._what} cannot be closed in the middle of a commit")
            if self.closed:
                return False
            self.closed = True
            while self._threads:
                self._ended.wait()
            return True
