"""What the connections of a database share: its store, how classes are found, and who is committing."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, get_ident
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
        self.finder = ClassFinder(options.allowed_classes)
        self.resolver = ConflictResolver(self.finder, DATABASE_NAME)
        self.commits = Commits(f"the database {store.name}")
        self.after_completion: Callable[[], None] = _nothing
        """Called whenever a transaction of any connection has ended."""


class Commits:
    """The commits in progress. Closing waits for them, and lets no other begin."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._condition = Condition()  # guards the two below
        self._threads: dict[int, int] = {}  # how many commits each thread has in progress
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def require_open(self) -> None:
        """Raises ClosedError."""
        if self._closed:
            raise ClosedError(self._what)

    def begin(self, transaction: Any, manager: object) -> Callable[[], None]:
        """A data manager begins to commit; what is returned is to be called once when it has ended.

        Only one of a database's data managers may take part in a transaction: the second would wait for the
        first to finish, in one thread. Raises UsageError for the second, ClosedError.
        """
        try:
            first = transaction.data(self)
        except KeyError:
            first = manager
            transaction.set_data(self, manager)
        if first is not manager:
            raise UsageError(
                f"two connections (or a connection and an undo) of {self._what} take part in one transaction; "
                "give each its own transaction manager"
            )
        thread = get_ident()
        with self._condition:
            self.require_open()
            self._threads[thread] = self._threads.get(thread, 0) + 1
        return lambda: self._end(thread)

    def _end(self, thread: int) -> None:
        with self._condition:
            self._threads[thread] -= 1
            if not self._threads[thread]:
                del self._threads[thread]
            self._condition.notify_all()

    def close(self) -> bool:
        """Let no commit begin any more, and wait for those in progress; False where it was closed already.

        Raises UsageError where this very thread is committing: it would wait for itself.
        """
        with self._condition:
            if get_ident() in self._threads:
                raise UsageError(f"{self._what} cannot be closed in the middle of a commit")
            if self._closed:
                return False
            self._closed = True
            while self._threads:
                self._condition.wait()
            return True
